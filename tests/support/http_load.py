"""HTTP/1.1 over asyncio's streams, for benchmarks: cheap, because it shares the cores it measures.

Requests are written once and sent many times; answers are read and not parsed. A picture and its
result cost 0.5 ms of CPU, with httpx 3.4 ms.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TASK_ID = re.compile(rb'"task_id": ?"([^"]+)"')
_STATUS = re.compile(rb'"status": ?"([a-z]+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def task_id(self) -> str:
        found = _TASK_ID.search(self.body[:2000])
        assert found, self.body[:200]
        return found.group(1).decode()

    def job_status(self) -> str:
        """The status in the head of a job object, empty if there is none. A result's picture, which
        follows, is not searched."""
        found = _STATUS.search(self.body[:2000])
        return found.group(1).decode() if found else ""


class Connection:
    """One kept-alive connection, one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, limit=4 * 1024 * 1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, request: bytes) -> Answer:
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length, head
        return Answer(int(head[9:12]), await self._reader.readexactly(int(length.group(1))))

    async def submit_and_wait(self, submission: bytes) -> Answer:
        """Send a submission, then ask for its result and wait for it: two requests."""
        accepted = await self.send(submission)
        return await self.send(get(f"/result/{accepted.task_id()}?wait=60"))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def delete(path: str) -> bytes:
    return f"DELETE {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post_image(path: str, image: bytes, *headers: str) -> bytes:
    """The image as the raw body."""
    lines = ["Content-Type: image/jpeg", f"Content-Length: {len(image)}", *headers]
    return f"POST {path} HTTP/1.1\r\nHost: bench\r\n".encode() + _joined(lines) + image


def post_form(path: str, image: bytes, *headers: str) -> bytes:
    """The image as the field `file` of a form."""
    boundary = "bench-boundary-7f3a"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body += image + f"\r\n--{boundary}--\r\n".encode()
    lines = [f"Content-Type: multipart/form-data; boundary={boundary}"]
    lines += [f"Content-Length: {len(body)}", *headers]
    return f"POST {path} HTTP/1.1\r\nHost: bench\r\n".encode() + _joined(lines) + body


@asynccontextmanager
async def closed_loop(port: int, image: bytes, clients: int) -> AsyncIterator[Callable[[], int]]:
    """`async with closed_loop(...) as done`: each client submits, waits for the result and submits
    the next. `done()` is how many jobs have completed so far."""
    request = post_image("/predict/", image)
    completed, stopping = 0, False

    async def stream() -> None:
        nonlocal completed
        async with Connection("127.0.0.1", port) as connection:
            while not stopping:
                answer = await connection.submit_and_wait(request)
                assert answer.job_status() == "completed", answer.body[:500]
                completed += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(stream())
        yield lambda: completed
        stopping = True


def _joined(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()
