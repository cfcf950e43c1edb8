"""A worker is told to stop in the middle of a job that takes longer than a lease."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.client import submit, wait_for
from tests.support.poison import SLOW_SECONDS, poison
from tests.support.stack import Stack, wait_until


def test_a_stopping_worker_finishes_its_long_job_alone(tmp_path: Path) -> None:
    with (
        Stack(tmp_path, WORKER_CONCURRENCY="1") as stack,
        httpx.Client(base_url=stack.url, timeout=30) as client,
    ):
        (stopping,) = stack.start(app="tests.chaos.app").workers
        task_id = submit(client, poison("slow"))["task_id"]
        link = f"/result/{task_id}"
        wait_until(
            lambda: client.get(link).json()["status"] == "processing", seconds=10, what="it runs"
        )
        stack.start_worker(app="tests.chaos.app")  # which would take it if its lease ran out
        stack.wait_ready(processes=2)
        stopping.terminate()
        assert stopping.wait(timeout=SLOW_SECONDS + 30) == 0
        job = wait_for(client, task_id)
        assert (job["status"], job["attempts"]) == ("completed", 1)
        workers = [worker["name"] for worker in client.get("/queue").json()["workers"]]
        assert len(workers) == 1, "it is off the list once it has ended"
