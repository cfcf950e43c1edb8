"""Pool processes warm up before they report that they are ready; replacements do too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until


def test_a_process_that_replaces_a_dead_one_is_warm_before_it_is_ready(tmp_path: Path) -> None:
    with Stack(tmp_path, WORKER_CONCURRENCY="1", LOG_LEVEL="debug") as stack:
        stack.start()
        (worker,) = stack.workers
        (first,) = pool_pids(worker)
        assert_warm_first(stack.logs(), first)
        os.kill(first, signal.SIGKILL)

        def replacement() -> int:
            others = set(pool_pids(worker)) - {first}
            return others.pop() if others else 0

        second = wait_until(replacement, seconds=30, what="another process")
        ready = f"(pid {second}) has loaded its model"
        wait_until(lambda: ready in stack.logs(), seconds=60, what="it is ready")
        assert_warm_first(stack.logs(), second)


def assert_warm_first(logs: str, pid: int) -> None:
    warm, ready = (
        logs.find(f"process {pid} is warm"),
        logs.find(f"(pid {pid}) has loaded its model"),
    )
    assert 0 <= warm < ready
