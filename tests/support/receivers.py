"""Receives webhooks on real sockets: receivers that answer, and some that take their time."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SECRET = "whsec_c2VjcmV0LWZvci10ZXN0cy1vZi15b2xvLXF1ZXVl"

Post = tuple[dict[str, str], bytes]
"""Headers, their names in lower case, and body."""


class _Handler(http.server.BaseHTTPRequestHandler):
    got: list[Post]
    failures: int
    heard: Callable[[Post], None]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.got.append((headers, body))
        self.heard((headers, body))
        self.send_response(500 if len(self.got) <= self.failures else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiver(
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    failures: int = 0,
    heard: Callable[[Post], None] = lambda _: None,
) -> Iterator[tuple[str, list[Post]]]:
    """Its URL on `host`, a name of this machine, and what it has got. Refuses the first
    `failures`. Calls `heard` for each post, in a thread of its own, before it answers."""
    attributes = {"got": [], "failures": failures, "heard": staticmethod(heard)}
    handler = type("Handler", (_Handler,), attributes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}/hook?x=1", handler.got
        finally:
            server.shutdown()
            thread.join()


class HeldConnection:
    """`with HeldConnection() as held`: takes one connection and never answers."""

    def __enter__(self) -> HeldConnection:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.port = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, *, seconds: float) -> None:
        """Until the request has come."""
        self._server.settimeout(seconds)
        connection, _ = self._server.accept()
        connection.settimeout(seconds)
        self._connections.append(connection)
        assert connection.recv(1) == b"P"

    def close(self) -> None:
        for one in (self._server, *self._connections):
            one.close()


class SlowReceiver:
    """`async with SlowReceiver() as slow`: takes connections and answers none until `release`.

    With `drip_seconds` it sends a byte of a header that often.
    """

    def __init__(self, *, drip_seconds: float = 0) -> None:
        self.open = 0
        self.most_open = 0
        self.answered = 0
        self._drip_seconds = drip_seconds
        self._released = asyncio.Event()

    async def __aenter__(self) -> SlowReceiver:
        self._server = await asyncio.start_server(self._hold, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}/"

    def release(self) -> None:
        """Answer those who wait and those who come."""
        self._released.set()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        answering = asyncio.create_task(self._answer(writer))
        try:
            with suppress(OSError):
                while await reader.read(1 << 16):
                    pass
        finally:
            answering.cancel()
            writer.close()
            self.open -= 1

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        if self._drip_seconds:
            writer.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
            while True:
                writer.write(b"x")
                await asyncio.sleep(self._drip_seconds)
        await self._released.wait()
        self.answered += 1
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()
