"""More connections than the gateway may open files: it keeps answering."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.metrics import scrape
from tests.support.stack import Stack, wait_until
from tests.support.wire import Wire, gateway_metric, queued_job

OPEN_FILES = 256


class FewFiles(Stack):
    """A stack whose processes may open `OPEN_FILES` files, or raise that to `most`."""

    def __init__(self, folder: Path, *, most: int = OPEN_FILES) -> None:
        super().__init__(folder)
        self._most = most

    def spawn(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        limited = f'ulimit -Sn {OPEN_FILES} && ulimit -Hn {self._most} && exec "$@"'
        return super().spawn(name, "sh", "-c", limited, "sh", *command, **environment)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    with FewFiles(tmp_path) as stack:
        yield stack.start(workers=0)


def test_silent_connections_do_not_block_the_gateway(small: Stack) -> None:
    with ExitStack() as wires:
        for _ in range(2 * OPEN_FILES):
            wires.enter_context(Wire(small))
        for path in ("/health", "/metrics"):
            assert small.answers(path)
        assert httpx.get(f"{small.url}/ready", timeout=10).json()["code"] == "no_worker_ready"
        assert queued_job(small)
        limit = gateway_metric(small, "connections_limit")
        assert limit / 2 < gateway_metric(small, "connections") < OPEN_FILES
    wait_until(lambda: gateway_metric(small, "connections") < 5, seconds=20, what="all are gone")
    assert small.log("api").read_text().count("connections are open") == 1


def test_beyond_the_limit_health_is_answered_and_all_else_is_503(small: Stack) -> None:
    path = f"/result/{queued_job(small)}?wait=60"
    limit = int(gateway_metric(small, "connections_limit"))
    # The one that asks for metrics below keeps none.
    with ExitStack() as wires:
        for _ in range(limit):
            wires.enter_context(Wire(small)).ask(path)
        wait_until(
            lambda: gateway_metric(small, "waiting_requests") == limit,
            seconds=20,
            what="every connection is in use",
        )
        for _ in range(3):
            with Wire(small) as beyond:
                beyond.ask(path)
                answer = beyond.refusal(503, "too_many_connections")
                assert int(answer.headers["retry-after"]) > 0
        # The answer arrives although its request's body was on the way.
        upload = httpx.post(f"{small.url}/predict/", files={"file": b"x" * 3_000_000})
        assert upload.json()["code"] == "too_many_connections"
        for _ in range(100):
            wires.enter_context(Wire(small)).ask(path)
        assert small.answers("/health")
        assert small.answers("/metrics")
        assert httpx.get(f"{small.url}/ready", timeout=10).json()["code"] == "no_worker_ready"
    wait_until(lambda: gateway_metric(small, "connections") < 5, seconds=20, what="all are gone")
    assert queued_job(small)


def test_the_soft_limit_on_open_files_is_raised(tmp_path: Path) -> None:
    with FewFiles(tmp_path, most=2048) as stack:
        stack.start(workers=0)
        assert gateway_metric(stack, "connections_limit") > 1024


def test_plain_uvicorn_serves_without_these_limits(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.redis.start()
        command = (sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app")
        stack.spawn("api", *command, "--port", str(stack.port))
        wait_until(lambda: stack.answers("/health"), seconds=30, what="it answers")
        assert queued_job(stack)
        names = {family.name for family in scrape(f"{stack.url}/metrics")}
        assert "yolo_queue_gateway_waiting_requests" in names
        assert "yolo_queue_gateway_connections" not in names
