"""The worker's health check tells a worker that takes jobs from one that only answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.stack import Stack, free_port
from worker.health import STALE_SECONDS, Report, Unhealthy, check, is_own, judge

WORKING = {"processes": 2, "loaded": 2, "ready": 2, "running": 0, "consuming": True}
WORKING |= {"models": {"m": "9f86"}, "runtimes": {"m": "torch"}}
HERE = f"celery@{socket.gethostname()}/{os.getpid()}"


def beat(settings: Settings, worker: str, **changes: Any) -> None:
    store = WorkerStore(settings)
    store.heartbeat(worker, WORKING | changes, [])
    store.redis.close()


def test_a_worker_that_takes_jobs_is_healthy(settings: Settings) -> None:
    beat(settings, HERE)
    assert check(settings) == f"{HERE}: 2 of 2 processes ready"


def test_a_worker_that_only_answers_is_unhealthy(settings: Settings) -> None:
    beat(settings, HERE, consuming=False, ready=0)
    with pytest.raises(Unhealthy, match="does not take jobs"):
        check(settings)


def test_a_worker_that_still_loads_is_unhealthy(settings: Settings) -> None:
    beat(settings, HERE, loaded=0, ready=0)
    with pytest.raises(Unhealthy, match="no process has loaded"):
        check(settings)


def test_a_worker_that_fell_silent_is_unhealthy() -> None:
    report = Report(HERE, STALE_SECONDS + 5, WORKING)
    with pytest.raises(Unhealthy, match="silent for 12 s"):
        judge(report)


def test_other_workers_do_not_count(settings: Settings) -> None:
    beat(settings, f"celery@elsewhere/{os.getpid()}")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    beat(settings, f"celery@{socket.gethostname()}/{gone.pid}")
    with pytest.raises(Unhealthy, match="no report"):
        check(settings)


def test_a_worker_with_a_name_is_found_by_it(settings: Settings) -> None:
    beat(settings, f"first@test/{os.getpid()}")
    beat(settings, f"second@test/{os.getpid()}", consuming=False)
    assert "first" in check(settings, node="first@test")
    with pytest.raises(Unhealthy, match="second"):
        check(settings, node="second@test")
    assert not is_own(HERE, "first@test")


def test_redis_away_is_said_in_one_line() -> None:
    with pytest.raises(Unhealthy, match="Redis does not answer"):
        check(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))


def test_the_command_as_a_container_runs_it(stack: Stack) -> None:
    """The command itself, beside a real worker: exit status, one line, and no heavy import."""
    command = [sys.executable, "-X", "importtime", "-m", "worker.health"]
    out = subprocess.run(
        [*command, "--name", "w1@test"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert out.returncode == 0, out.stdout + out.stderr
    assert out.stdout.count("\n") == 1
    assert "2 of 2 processes ready" in out.stdout
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in out.stderr.splitlines()
    }
    assert "redis" in imported
    assert not imported & {"torch", "ultralytics", "cv2", "numpy", "celery", "openvino"}

    began = time.monotonic()
    unknown = subprocess.run(
        [sys.executable, "-m", "worker.health", "--name", "nobody@test"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert unknown.returncode == 1
    assert unknown.stdout.startswith("unhealthy: ")
    assert unknown.stdout.count("\n") == 1
    assert time.monotonic() - began < 5, "health checks have a timeout of 8 s"
