"""Workers that start and stop beside others: no job waits for them."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.stack import Stack, wait_until

APP = "tests.support.simulated_app"
JOBS = 20
# A message that a worker kept would be replaced after a lease, and no test would see it.
SETTINGS = {"WORKER_CONCURRENCY": "1", "LEASE_SECONDS": "25"}


def ready_of_each(stack: Stack) -> list[int]:
    workers = httpx.get(f"{stack.url}/queue").json()["workers"]
    return sorted(worker["ready"] for worker in workers)


def assert_jobs_complete(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url) as client:
        jobs = [submit(client, sample())["task_id"] for _ in range(JOBS)]
        for job in jobs:
            assert wait_for(client, job, seconds=10)["status"] == "completed"


def test_a_worker_that_loads_takes_no_job_from_one_that_is_ready(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    with Stack(tmp_path, **SETTINGS) as stack:
        stack.start(app=APP)
        stack.start_worker(app=APP, SIMULATED_LOAD_UNTIL=str(loaded))
        wait_until(lambda: ready_of_each(stack) == [0, 1], seconds=30, what="the second reports")
        assert_jobs_complete(stack)
        assert ready_of_each(stack) == [0, 1]
        loaded.touch()
        stack.wait_ready(processes=2)


def test_a_worker_that_stops_takes_no_job_though_it_still_runs_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopping_settings = {"WORKER_CONCURRENCY": "2", "SIMULATED_RUN_UNTIL": str(run)}
    with Stack(tmp_path, **SETTINGS) as stack, httpx.Client(base_url=stack.url) as client:
        stack.start(workers=0)
        stopping = stack.start_worker(app=APP, **stopping_settings)
        stack.wait_ready(processes=2)
        last = submit(client, sample())["task_id"]

        def runs() -> bool:
            return bool(client.get(f"/result/{last}").json()["status"] == "processing")

        wait_until(runs, seconds=10, what="it runs")
        stack.start_worker(app=APP)
        stack.wait_ready(processes=3)
        stopping.terminate()
        assert_jobs_complete(stack)
        assert stopping.poll() is None
        run.touch()
        assert wait_for(client, last)["status"] == "completed"
