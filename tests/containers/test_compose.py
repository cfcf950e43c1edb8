"""`docker compose up`, as the README has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.chaos.cases import healthy_cases
from tests.containers.compose import Project
from tests.containers.engine import Engine, EngineError
from tests.support.client import submit, wait_for

CONFINED = {"CapEff:\t0000000000000000", "NoNewPrivs:\t1"}
"""Lines of /proc/PID/status."""


@pytest.fixture(scope="module")
def service(engine: Engine, built: None) -> Iterator[Project]:
    with Project(engine, "yolo-queue-test") as project:
        project.up("--scale", "worker=4")
        yield project


def test_uploads_get_the_right_results_from_several_workers(service: Project) -> None:
    cases = healthy_cases(micro_batch_jobs=1) * 4
    with service.client() as client:
        ids = [submit(client, case.image)["task_id"] for case in cases]
        for case, task_id in zip(cases, ids, strict=True):
            job = wait_for(client, task_id, seconds=120)
            assert (job["status"], job["attempts"]) == ("completed", 1), job
            assert job["detections"] == case.detections, case.name
        queue = client.get("/queue").json()
    assert len(queue["workers"]) == 4
    assert queue["depth"] == 0
    ran = [runs(service, worker) for worker in service.ids("worker")]
    assert sum(ran) == len(cases)
    assert min(ran) > 0, ran


def test_the_page_and_its_samples_are_there(service: Project) -> None:
    with service.client() as client:
        assert "<html" in client.get("/").text
        samples = client.get("/page-config").json()["samples"]
        assert {client.get(sample["url"]).status_code for sample in samples} == {200}


def test_flower_asks_for_the_password_that_the_log_of_secrets_has(service: Project) -> None:
    (user, password) = re.findall(r"Flower's user and password: (\w+):(\w+)", service.logs())[0]
    url = f"http://127.0.0.1:{service.flower_port}/api/workers"
    assert httpx.get(url, timeout=30).status_code == 401
    answer = httpx.get(url, auth=(user, password), params={"refresh": "1"}, timeout=30)
    assert answer.status_code == 200
    assert len(answer.json()) == 4


def test_metrics(service: Project) -> None:
    with service.client() as client:
        assert "yolo_queue_processes_ready 4.0" in client.get("/metrics").text


def runs(service: Project, worker: str) -> int:
    """Jobs that this worker has completed."""
    (count,) = re.findall(
        r"^yolo_queue_worker_job_seconds_count (\d+)", worker_metrics(service, worker), re.MULTILINE
    )
    return int(count)


def worker_metrics(service: Project, worker: str) -> str:
    url = "http://127.0.0.1:9100/metrics"
    ask = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    return service.engine.docker("exec", worker, "python", "-c", ask)


def test_no_secret_is_in_what_the_engine_shows(service: Project) -> None:
    """Neither in `docker inspect` nor in the processes' arguments."""
    (redis,) = service.ids("redis")
    told = service.engine.docker("exec", redis, "cat", "/run/yolo-queue/redis/env")
    flower = service.engine.docker(
        "exec", *service.ids("flower"), "cat", "/run/yolo-queue/flower/env"
    )
    secrets = {*re.findall(r"redis://:(\w+)@", told), *re.findall(r"AUTH=\w+:(\w+)", flower)}
    assert len(secrets) == 2
    running = [one for one in service.inspect() if one["State"]["Running"]]
    arguments = [p["args"] for one in running for p in service.processes(one["Id"])]
    shown = json.dumps([service.inspect(), arguments])
    assert not [secret for secret in secrets if secret in shown]


def test_every_container_is_confined(service: Project) -> None:
    running = [one for one in service.inspect() if one["State"]["Running"]]
    assert len(running) == 7
    for one in running:
        name = one["Name"]
        processes = service.processes(one["Id"])
        ours = [p for p in processes if not p["args"].startswith("/sbin/docker-init")]
        assert ours, name
        assert not [p for p in processes if p["user"] in ("root", "0")], name
        look = "grep -hE 'CapEff|NoNewPrivs' /proc/[0-9]*/status"
        confined = service.engine.docker("exec", one["Id"], "sh", "-c", look).split("\n")
        assert len(confined) > 2 * len(ours), name
        assert {line for line in confined if line} == CONFINED, name
        with pytest.raises(EngineError, match="Read-only file system"):
            service.engine.docker("exec", "--user", "0", one["Id"], "touch", "/etc/written")


def test_redis_and_workers_have_no_way_out(service: Project) -> None:
    """Not even to a container on a network that has one."""
    (flower,) = service.inspect("flower")
    networks = flower["NetworkSettings"]["Networks"]
    address = networks[f"{service.name}_frontend"]["IPAddress"]
    connect = f"import socket; socket.create_connection(('{address}', 5555), timeout=3)"
    (api,), (worker, *_) = service.ids("api"), service.ids("worker")
    service.engine.docker("exec", api, "python", "-c", connect)
    with pytest.raises(EngineError, match=r"timed out|unreachable"):
        service.engine.docker("exec", worker, "python", "-c", connect)


def test_the_command_for_the_one_who_runs_it(service: Project) -> None:
    said = service.compose("run", "--rm", "yolo-queue", "doctor")
    assert "All is well." in said
    assert "code" in service.compose("run", "--rm", "yolo-queue", "dead", "list")
