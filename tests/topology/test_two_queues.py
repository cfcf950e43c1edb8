"""Two services on one Redis, as for two models: queues, workers and ids are separate."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import redis

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise
from tests.support.stack import Stack, wait_until

IMAGE = encoded(noise(40, 30), "PNG")
QUEUES = ("codes", "faces")
JOBS = 12


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stack]]:
    """Both on the embedded Redis of the first."""
    first, second = QUEUES
    with Stack(tmp_path_factory.mktemp(first), YOLO_QUEUE=first, WORKER_CONCURRENCY="1") as one:
        one.redis.start()
        with Stack(
            tmp_path_factory.mktemp(second),
            YOLO_QUEUE=second,
            WORKER_CONCURRENCY="1",
            REDIS_URL=one.redis.url,
        ) as two:
            both = {first: one, second: two}
            for name, stack in both.items():
                stack.start_gateway()
                stack.workers = [stack.start_worker(name, app="tests.support.simulated_app")]
            for stack in both.values():
                stack.wait_ready(processes=1)
            yield both


def test_jobs_do_not_mix(services: dict[str, Stack]) -> None:
    clients = {
        name: httpx.Client(base_url=stack.url, timeout=30) for name, stack in services.items()
    }
    ids: dict[str, list[str]] = {name: [] for name in QUEUES}
    for _ in range(JOBS):
        for name in QUEUES:
            ids[name].append(submit(clients[name], IMAGE)["task_id"])
    with redis.Redis(port=services[QUEUES[0]].redis.port) as store:
        for name, other in (QUEUES, QUEUES[::-1]):
            for task_id in ids[name]:
                assert wait_for(clients[name], task_id)["status"] == "completed"
                answer = clients[other].get(f"/result/{task_id}")
                assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
                worker = store.hget(f"{name}:job:{task_id}", "worker")
                assert worker is not None
                assert worker.decode().startswith(f"{name}@test/"), "its own service's worker"
            queue = clients[name].get("/queue").json()
            assert len(queue["workers"]) == 1
            assert int(store.hget(f"{name}:stats", "jobs:completed") or 0) == JOBS
    for client in clients.values():
        client.close()


def test_one_service_without_a_worker_does_not_hold_up_the_other(
    services: dict[str, Stack],
) -> None:
    idle, busy = (services[name] for name in QUEUES)
    idle.workers[0].terminate()
    assert idle.workers[0].wait(timeout=30) == 0
    with (
        httpx.Client(base_url=idle.url, timeout=30) as waiting,
        httpx.Client(base_url=busy.url, timeout=30) as served,
    ):
        task_id = submit(waiting, IMAGE)["task_id"]
        assert wait_for(served, submit(served, IMAGE)["task_id"])["status"] == "completed"
        assert waiting.get(f"/result/{task_id}").json()["status"] == "queued"
        wait_until(lambda: waiting.get("/ready").status_code == 503, seconds=12, what="it says so")
        assert served.get("/ready").status_code == 200
        idle.workers[0] = idle.start_worker(QUEUES[0], app="tests.support.simulated_app")
        assert wait_for(waiting, task_id)["status"] == "completed"
