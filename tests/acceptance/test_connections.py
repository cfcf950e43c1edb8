"""Clients that hold connections, flood heads or read slowly, against a real gateway."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from shared.job.celery_result import success_meta
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.images import sample
from tests.support.metrics import samples, scrape, value
from tests.support.stack import Stack, wait_until

PHONE_BYTES_PER_SECOND = 20 * 1024
OPEN_FILES = 256


class FewFiles(Stack):
    """A gateway that may open so many files: soft limit, hard limit."""

    limits = (OPEN_FILES, OPEN_FILES)

    def spawn(self, name: str, *command: str, **environment: str):  # type: ignore[no-untyped-def]
        soft, hard = self.limits
        limited = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
        return super().spawn(name, "sh", "-c", limited, "sh", *command, **environment)


class Wire:
    """A connection that sends what it is told, byte for byte."""

    def __init__(self, stack: Stack, *, receive_buffer: int = 0) -> None:
        self.received = b""
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", stack.port))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: str) -> None:
        self.socket.sendall(data.encode())

    def ask(self, path: str, *headers: str) -> None:
        self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway", *headers, "", ""]))

    def answer(self) -> httpx.Response:
        """Read one answer, as long as it says."""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
        size = int(headers.get("content-length", 0))
        while len(self.received) < size:
            self._receive()
        body, self.received = self.received[:size], self.received[size:]
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)

    def _receive(self) -> None:
        more = self.socket.recv(65536)
        assert more, f"closed after {self.received!r}"
        self.received += more

    def has_answer(self) -> bool:
        readable, _, _ = select.select([self.socket], [], [], 0)
        return bool(readable)

    def closed(self) -> bool:
        """Whether the gateway has ended the connection, as far as one can tell without waiting."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(30)
        return True


def problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    body = json.loads(answer.content)
    assert (body["status"], body["code"]) == (status, code)
    assert answer.headers["connection"] == "close"


def metric(stack: Stack, name: str, **labels: str) -> float:
    return value(samples(scrape(f"{stack.url}/metrics")), f"yolo_queue_gateway_{name}", **labels)


def ended(stack: Stack, reason: str) -> float:
    return metric(stack, "connections_ended_total", reason=reason)


def queued_job(stack: Stack) -> str:
    """There is no worker: it stays queued."""
    answer = httpx.post(f"{stack.url}/predict/", files={"file": sample()})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def finished_job(stack: Stack, picture_bytes: int) -> str:
    task_id = queued_job(stack)
    store = WorkerStore(Settings(redis_url=stack.redis.url))
    attempt = store.claim(task_id, "test")
    assert not isinstance(attempt, str), attempt
    assert store.complete(
        attempt, success_meta(task_id, {"detections": []}, os.urandom(picture_bytes))
    )
    return task_id


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("connections"), RESULT_TTL_SECONDS="3600") as stack:
        stack.redis.start()
        stack.start_gateway()
        yield stack


# -- idle ---------------------------------------------------------------------------------------


def test_a_head_has_a_deadline_and_nothing_else_has(gateway: Stack) -> None:
    """The silent and the half-sent are ended; those that only wait for the gateway are not."""
    task_id = queued_job(gateway)
    with ExitStack() as all_wires:

        def open_wire() -> Wire:
            return all_wires.enter_context(Wire(gateway))

        silent = [open_wire() for _ in range(30)]
        newlines = open_wire()
        half_sent = [open_wire() for _ in range(5)]
        for wire in half_sent:
            wire.send("GET /health HTTP/1.1\r\nHost: gat")
        second_half_sent = open_wire()
        second_half_sent.ask("/health")
        assert second_half_sent.answer().status_code == 200
        second_half_sent.send("GET /he")
        asking, stream, held = (open_wire() for _ in range(3))
        stream.ask(f"/result/{task_id}/events")
        held.ask(f"/result/{task_id}?wait=20")

        def all_ended() -> bool:
            asking.ask("/health")
            assert asking.answer().status_code == 200
            with suppress(ConnectionError):
                newlines.send("\r\n")  # which is not yet a head
            return all(wire.closed() for wire in (*silent, newlines))

        wait_until(all_ended, seconds=45, what="silent connections are closed")
        for wire in (*half_sent, second_half_sent):
            problem(wire.answer(), 408, "request_timeout")
        assert held.answer().status_code == 200
        assert not stream.closed()
    assert ended(gateway, "head_timeout") == len(silent) + len(half_sent) + 2


# -- heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["x-{}: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", "y"])
def test_a_head_without_an_end_is_refused(gateway: Stack, line: str) -> None:
    block = "".join(line.format(number) for number in range(100))
    with Wire(gateway) as wire:
        wire.send("GET /health HTTP/1.1\r\nHost: gateway\r\nx-y: y")
        sent = 0
        while not wire.has_answer():
            wire.send(block)
            sent += len(block)
            assert sent < 50_000_000
        problem(wire.answer(), 431, "head_too_large")
        wait_until(wire.closed, seconds=20, what="the connection is closed")


def test_a_whole_head_may_have_64_kib(gateway: Stack) -> None:
    with Wire(gateway) as wire:
        wire.ask("/health", "x-y: " + "y" * 60_000)
        assert wire.answer().status_code == 200
        wire.ask("/health", "x-y: " + "y" * 70_000)
        problem(wire.answer(), 431, "head_too_large")
        wait_until(wire.closed, seconds=20, what="the connection is closed")


def test_requests_that_are_sent_ahead_are_bounded(gateway: Stack) -> None:
    """Each is held in memory until its turn: 18 MB of them were 1.1 GB."""
    request = "GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"
    with Wire(gateway) as wire:
        wire.send(request * 20)
        for _ in range(20):
            assert wire.answer().status_code == 200
    with Wire(gateway) as wire:
        wire.send(request * 1000)
        received = b""
        with suppress(ConnectionError):
            while more := wire.socket.recv(65536):
                received += more
    assert received.count(b"HTTP/1.1 200") < 100


def test_a_websocket_is_refused_as_an_error_of_ours(gateway: Stack) -> None:
    with Wire(gateway) as wire:
        wire.ask(
            "/result/1/events",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        problem(wire.answer(), 400, "bad_request")


# -- slow readers -------------------------------------------------------------------------------


def test_who_hardly_reads_is_cut_off_and_who_reads_slowly_is_not(gateway: Stack) -> None:
    path = f"/result/{finished_job(gateway, 750_000)}"
    quiet = f"/result/{queued_job(gateway)}"
    with ExitStack() as all_wires:
        crawlers = [all_wires.enter_context(Wire(gateway, receive_buffer=4096)) for _ in range(3)]
        phone, stream, held = (all_wires.enter_context(Wire(gateway)) for _ in range(3))
        for wire in (*crawlers, phone):
            wire.ask(path, "Connection: close")
        stream.ask(f"{quiet}/events")
        held.ask(f"{quiet}?wait=30")
        wait_until(
            lambda: metric(gateway, "response_bytes") > 2_000_000,
            seconds=20,
            what="answers wait in the gateway",
        )
        received = bytearray()
        begin = time.monotonic()

        def read_as_a_phone() -> None:
            while more := phone.socket.recv(2048):
                received.extend(more)
                ahead = len(received) / PHONE_BYTES_PER_SECOND - (time.monotonic() - begin)
                time.sleep(max(0, ahead))

        reading = threading.Thread(target=read_as_a_phone, daemon=True)
        reading.start()

        def crawl() -> bool:
            for wire in crawlers:
                with suppress(ConnectionError):
                    wire.socket.recv(1)
            return ended(gateway, "slow_reader") == len(crawlers)

        wait_until(crawl, seconds=60, what="slow readers are cut off")
        reading.join(timeout=100)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["status"] == "completed"
        assert held.answer().status_code == 200
        assert not stream.closed()
    assert ended(gateway, "slow_reader") == len(crawlers)
    assert metric(gateway, "response_bytes") == 0


def test_what_slow_readers_hold_together_is_bounded(tmp_path: Path) -> None:
    limit = 16 * 1024 * 1024
    with Stack(tmp_path, MAX_GATEWAY_RESPONSE_BYTES=str(limit)) as stack, ExitStack() as wires:
        stack.redis.start()
        stack.start_gateway()
        path = f"/result/{finished_job(stack, 750_000)}"
        for _ in range(40):
            wires.enter_context(Wire(stack, receive_buffer=4096)).ask(path)
        wait_until(
            lambda: ended(stack, "response_memory") >= 10,
            seconds=30,
            what="the slowest are cut off",
        )
        assert metric(stack, "response_bytes") <= limit
        assert stack.log("api").read_text().count("MAX_GATEWAY_RESPONSE_BYTES") == 1


# -- descriptors --------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stack]:
    with FewFiles(tmp_path) as stack:
        stack.redis.start()
        stack.gateway = stack.start_gateway()
        yield stack


def test_silent_connections_do_not_take_the_gateway_away(small: Stack) -> None:
    with ExitStack() as wires:
        for _ in range(2 * OPEN_FILES):
            wires.enter_context(Wire(small))
        for path in ("/health", "/metrics"):
            assert small.answers(path)
        assert httpx.get(f"{small.url}/ready", timeout=10).json()["code"] == "no_worker_ready"
        assert queued_job(small)
        limit, now = metric(small, "connections_limit"), metric(small, "connections")
        assert limit / 2 < now < OPEN_FILES
    wait_until(lambda: metric(small, "connections") < 5, seconds=20, what="all are gone")
    assert small.log("api").read_text().count("connections are open") == 1


def test_beyond_the_limit_there_are_answers_for_health_and_503_for_the_rest(small: Stack) -> None:
    path = f"/result/{queued_job(small)}?wait=60"
    limit = int(metric(small, "connections_limit"))
    # The one that asks for metrics below keeps none.
    with ExitStack() as wires:
        for _ in range(limit):
            wires.enter_context(Wire(small)).ask(path)
        wait_until(
            lambda: metric(small, "waiting_requests") == limit,
            seconds=20,
            what="every connection is in use",
        )
        for _ in range(3):
            with Wire(small) as beyond:
                beyond.ask(path)
                answer = beyond.answer()
                problem(answer, 503, "too_many_connections")
                assert int(answer.headers["retry-after"]) > 0
        # The answer arrives although its request's body was on the way.
        upload = httpx.post(f"{small.url}/predict/", files={"file": b"x" * 3_000_000})
        assert upload.json()["code"] == "too_many_connections"
        for _ in range(100):
            wires.enter_context(Wire(small)).ask(path)
        assert small.answers("/health")
        assert small.answers("/metrics")
        assert httpx.get(f"{small.url}/ready", timeout=10).json()["code"] == "no_worker_ready"
    wait_until(lambda: metric(small, "connections") < 5, seconds=20, what="all are gone")
    assert queued_job(small)


def test_the_limit_on_open_files_is_raised(tmp_path: Path) -> None:
    with FewFiles(tmp_path) as stack:
        stack.limits = (OPEN_FILES, 2048)  # type: ignore[misc]
        stack.redis.start()
        stack.start_gateway()
        assert metric(stack, "connections_limit") > 1024


def test_a_gateway_of_plain_uvicorn_works_without_these_bounds(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.redis.start()
        command = (sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app")
        stack.spawn("api", *command, "--port", str(stack.port))
        wait_until(lambda: stack.answers("/health"), seconds=30, what="it answers")
        assert queued_job(stack)
        names = {family.name for family in scrape(f"{stack.url}/metrics")}
        assert "yolo_queue_gateway_waiting_requests" in names
        assert "yolo_queue_gateway_connections" not in names
