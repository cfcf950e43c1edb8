"""Containers come, go and die under load: every accepted job is accounted for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice

import httpx
import pytest

from tests.chaos.cases import Case, broken_case, healthy_cases
from tests.chaos.history_load import Audit
from tests.chaos.load import CaseLoad
from tests.chaos.reconcile import Verdict, reconcile
from tests.containers.compose import STARVED, Project
from tests.containers.engine import Engine, EngineError
from tests.support.client import submit, wait_for
from tests.support.largest_pictures import largest_picture
from tests.support.stack import wait_until
from yolo_queue import AsyncClient

JOBS, RATE = 60, 10.0
LONG_SECONDS = 300


@pytest.fixture
def service(engine: Engine, built: None) -> Iterator[Project]:
    settings = {"WORKERS": "1", "RESULT_TTL_SECONDS": "3600"}
    with Project(engine, "yolo-queue-faults", settings) as project:
        yield project


def under_load(service: Project, cases: list[Case], faults: Callable[[], None]) -> Verdict:
    """Send the cases while faults happen, and account for each when all have ended."""

    async def send() -> CaseLoad:
        async with AsyncClient(service.url, retry_seconds=0) as client:
            load = CaseLoad(client, cases, RATE)
            sending = asyncio.create_task(load.run())
            await asyncio.to_thread(faults)
            load.finish()
            await sending
            return load

    load = asyncio.run(send())
    with service.client() as client:
        audits = {
            shot.task_id: Audit(client.get(f"/result/{shot.task_id}").json(), [])
            for shot in load.shots
            if shot.task_id
        }
    print(Counter(audit.job["status"] for audit in audits.values()))
    return reconcile(load, {}, audits, [])


def test_nothing_is_lost_when_containers_come_and_go(service: Project) -> None:
    service.up()
    cases = [*islice(cycle(healthy_cases(micro_batch_jobs=1)), JOBS - 2)]
    cases += [broken_case(1), broken_case(2)]
    kill = ("kill", "--signal", "KILL")

    def faults() -> None:
        service.up("--scale", "worker=4", "--no-recreate")
        service.engine.docker(*kill, service.ids("worker")[0])
        service.up("--scale", "worker=2", "--no-recreate")
        for name in ("api", "redis"):
            service.engine.docker(*kill, *service.ids(name))
            service.up("--no-recreate", "--scale", "worker=2")
        # What dies by itself, the engine starts again.
        with suppress(EngineError):  # its own shell may die with the container
            service.engine.docker("exec", *service.ids("api"), "sh", "-c", "kill -9 -1")
        wait_until(lambda: answers(service), seconds=60, what="the gateway is back")
        service.compose("restart")

    verdict = under_load(service, cases, faults)
    assert not verdict.discrepancies, verdict.discrepancies
    print(verdict.account)


def answers(service: Project) -> bool:
    try:
        return httpx.get(f"{service.url}/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_a_worker_at_its_memory_limit_costs_the_picture_that_is_too_large_alone(
    engine: Engine, service: Project
) -> None:
    service.settings["WORKER_MEMORY"] = STARVED
    service.up()
    photographs = healthy_cases(micro_batch_jobs=1)
    with service.client() as client:
        (largest,) = [
            submit(client, largest_picture("PNG 16 bits with alpha, 50 megapixels"))["task_id"]
        ]
        ids = [submit(client, case.image)["task_id"] for case in photographs]
        job = wait_for(client, largest, seconds=LONG_SECONDS)
        assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost"), job
        for case, task_id in zip(photographs, ids, strict=True):
            job = wait_for(client, task_id, seconds=LONG_SECONDS)
            assert (job["status"], job["detections"]) == ("completed", case.detections), case.name
    (worker,) = service.ids("worker")
    killed = engine.docker(
        *("events", "--since", "1h", "--until", "0s", "--filter", f"container={worker}"),
        *("--filter", "event=oom", "--format", "{{.Status}}"),
    )
    assert "oom" in killed


def test_what_waits_survives_down_and_up(service: Project) -> None:
    service.up("--scale", "worker=0")
    cases = healthy_cases(micro_batch_jobs=1)
    with service.client() as client:
        ids = [submit(client, case.image)["task_id"] for case in cases]
    service.compose("down")
    assert service.inspect() == []
    service.up()
    with service.client() as client:
        for case, task_id in zip(cases, ids, strict=True):
            job = wait_for(client, task_id, seconds=LONG_SECONDS)
            assert (job["status"], job["detections"]) == ("completed", case.detections), case.name
