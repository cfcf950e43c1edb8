"""The weights vanish under a running worker, as when a network share is down."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import httpx

from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.processes import pool_pids
from tests.support.stack import DEMO_MODEL, Stack, wait_until


def test_only_new_processes_wait_while_the_weights_are_gone(tmp_path: Path) -> None:
    weights = tmp_path / "models" / "best.pt"
    weights.parent.mkdir()
    shutil.copy(DEMO_MODEL, weights)
    # PyTorch reads the weights themselves; OpenVINO would have an export of them.
    with (
        Stack(tmp_path, YOLO_MODEL=str(weights), YOLO_RUNTIME="torch") as stack,
        httpx.Client(base_url=stack.url, timeout=30) as client,
    ):
        stack.start()
        (worker,) = stack.workers
        weights.rename(tmp_path / "elsewhere.pt")
        os.kill(pool_pids(worker)[0], signal.SIGKILL)
        log = stack.log("worker-w1")
        wait_until(
            lambda: "cannot load the model that others" in log.read_text(),
            seconds=30,
            what="the replacement says what is wrong",
        )
        # One of them may have been handed to the process that waits: it is sent again like any
        # other whose message is lost.
        jobs = [submit(client, sample())["task_id"] for _ in range(3)]
        assert {wait_for(client, one, seconds=60)["status"] for one in jobs} == {"completed"}
        wait_until(
            lambda: client.get("/ready").json()["ready_processes"] == 1,
            seconds=10,
            what="it does not count as ready",
        )
        (tmp_path / "elsewhere.pt").rename(weights)
        stack.wait_ready(processes=2, seconds=60)

        weights.unlink()
        os.kill(pool_pids(worker)[0], signal.SIGKILL)
        wait_until(
            lambda: log.read_text().count("cannot load the model") > 1,
            seconds=30,
            what="another replacement waits",
        )
        worker.terminate()
        assert worker.wait(timeout=30) == 0, "it can be stopped while one waits"
