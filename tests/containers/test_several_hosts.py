"""Workers on another host, as docs/scaling.md has it: deploy/several-hosts.

The other host is a second project on a network of its own. The engine keeps the two networks apart;
what passes between them goes through the port that the first host publishes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cases import healthy_cases
from tests.containers.compose import TAG, Project
from tests.containers.engine import Engine, EngineError
from tests.support.client import submit, wait_for
from tests.support.stack import ROOT, free_port

FOLDER = ROOT / "deploy" / "several-hosts"


@pytest.fixture
def address(engine: Engine) -> Iterator[str]:
    """Of this machine on a network that neither project is on."""
    name = "yolo-queue-between-hosts"
    engine.docker("network", "create", name)
    try:
        (network,) = json.loads(engine.docker("network", "inspect", name))
        yield network["IPAM"]["Config"][0]["Gateway"]
    finally:
        engine.docker("network", "rm", name)


def test_workers_on_a_second_host_do_the_work(
    engine: Engine, built: None, address: str, tmp_path: Path
) -> None:
    port = free_port()
    first_settings = {"WORKERS": "0", "REDIS_ADDRESS": address, "REDIS_PORT": str(port)}
    redis_env = tmp_path / "redis.env"
    second_settings = {"TAG": TAG, "WORKERS": "2", "REDIS_ENV": str(redis_env)}
    with (
        Project(engine, "yolo-queue-first", first_settings, [FOLDER / "redis.yml"]) as first,
        Project(
            engine, "yolo-queue-second", second_settings, [FOLDER / "workers.yml"], alone=True
        ) as second,
    ):
        first.up("api", "redis")
        cases = healthy_cases(micro_batch_jobs=1)
        with first.client() as client:
            ids = [submit(client, case.image)["task_id"] for case in cases]
            assert client.get("/queue").json()["workers"] == []
            redis_env.write_text(
                first.compose(
                    *("exec", "-T", "redis", "sed", f"s/@redis:6379/@{address}:{port}/"),
                    "/run/yolo-queue/redis/env",
                )
            )
            second.up()
            for case, task_id in zip(cases, ids, strict=True):
                job = wait_for(client, task_id, seconds=120)
                assert (job["status"], job["detections"]) == ("completed", case.detections)
            assert len(client.get("/queue").json()["workers"]) == 2
        stranger = f"import redis; redis.Redis('{address}', {port}).ping()"
        with pytest.raises(EngineError, match="AuthenticationError"):
            engine.docker("exec", second.ids("worker")[0], "python", "-c", stranger)
