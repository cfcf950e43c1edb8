"""Speaks HTTP byte by byte, for clients that do not behave, and makes jobs for them to read."""

from __future__ import annotations

import os
import select
import socket

import httpx

from shared.job.celery_result import success_meta
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.client import problem
from tests.support.images import sample
from tests.support.metrics import samples, scrape, value
from tests.support.stack import Stack


class Wire:
    """One connection to a gateway, on which a test sends what it wants, byte for byte."""

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
        """Read one answer, by its Content-Length."""
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

    def refusal(self, status: int, code: str) -> httpx.Response:
        """Read a refusal after which the gateway closes the connection."""
        answer = self.answer()
        problem(answer, status, code)
        assert answer.headers["connection"] == "close"
        return answer

    def _receive(self) -> None:
        more = self.socket.recv(65536)
        assert more, f"closed after {self.received!r}"
        self.received += more

    def has_answer(self) -> bool:
        readable, _, _ = select.select([self.socket], [], [], 0)
        return bool(readable)

    def closed(self) -> bool:
        """Whether the gateway has closed the connection; does not wait for it."""
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


def gateway_metric(stack: Stack, name: str, **labels: str) -> float:
    return value(samples(scrape(f"{stack.url}/metrics")), f"yolo_queue_gateway_{name}", **labels)


def ended(stack: Stack, reason: str) -> float:
    """Connections that the gateway has ended for this reason."""
    return gateway_metric(stack, "connections_ended_total", reason=reason)


def queued_job(stack: Stack) -> str:
    """The id of a job that stays queued, where there is no worker."""
    answer = httpx.post(f"{stack.url}/predict/", files={"file": sample()})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def finished_job(stack: Stack, picture_bytes: int) -> str:
    """The id of a completed job with an annotated picture of this size."""
    task_id = queued_job(stack)
    store = WorkerStore(Settings(redis_url=stack.redis.url))
    attempt = store.claim(task_id, "test", ["demo"])
    assert not isinstance(attempt, str), attempt
    assert store.complete(
        attempt, success_meta(task_id, {"detections": []}, os.urandom(picture_bytes))
    )
    return task_id
