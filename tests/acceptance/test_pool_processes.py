"""Pool processes that are killed or grow too large: noticed at once, replaced, no job lost."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until

KILLS = 8
LARGE = encoded(noise(4000, 3000), "JPEG", quality=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def replaced(stack: Stack) -> list[int]:
    """Pids whose end was noticed when it happened, and not at Celery's next round of 5 s."""
    found = re.findall(r"pool process (\d+) has ended; another one", stack.logs())
    return list(map(int, found))


def test_a_killed_process_is_noticed_by_its_closed_files(folder: Path) -> None:
    with (
        Stack(folder, WORKER_CONCURRENCY="1", MAX_ATTEMPTS="20") as stack,
        httpx.Client(base_url=stack.url, timeout=30) as client,
    ):
        (worker,) = stack.start().workers
        job = submit(client, LARGE)
        killed = []
        for number in range(1, KILLS + 1):
            wait_until(
                lambda number=number: (
                    client.get(f"/result/{job['task_id']}").json()["attempts"] == number
                ),
                seconds=60,
                what=f"attempt {number}",
            )
            (pid,) = pool_pids(worker)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            wait_until(
                lambda: len(replaced(stack)) == len(killed), seconds=60, what="it is noticed"
            )
        ended = wait_for(client, job["task_id"], seconds=60)
        assert (ended["status"], ended["attempts"]) == ("completed", KILLS + 1)


@pytest.fixture
def small(folder: Path) -> Iterator[Stack]:
    """Every process is above its bound at once, so that each has one job."""
    with Stack(folder, WORKER_CONCURRENCY="2", MAX_PROCESS_BYTES=str(1 << 20)) as stack:
        yield stack.start()


def test_a_process_above_its_bound_is_replaced_between_two_jobs(small: Stack) -> None:
    (worker,) = small.workers
    first = set(pool_pids(worker))
    with httpx.Client(base_url=small.url, timeout=30) as client:
        ids = [submit(client, sample())["task_id"] for _ in range(8)]
        jobs = [wait_for(client, task_id, seconds=120) for task_id in ids]
    assert [(job["status"], job["attempts"]) for job in jobs] == [("completed", 1)] * 8
    assert not first & set(pool_pids(worker))
    assert "worker_lost" not in small.logs()
