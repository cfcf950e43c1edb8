"""Uvicorn's HTTP protocol with bounds: on a request's head, on pipelining, on slow readers.

It reports what happens on its connection to a `Connections`, which ends those that are late. A
gateway that is started as `uvicorn --factory api.app:create_app` runs without it.

What it uses of uvicorn's `HttpToolsProtocol` that is not documented (seen in 0.54), beside the
callbacks of asyncio and httptools that it extends:

- `app`: replaced for a request that is refused, so that the refusal is sent in its turn;
- `url`, `headers`: measured once a head is complete;
- `cycle.response_complete`, `cycle.keep_alive`: whether an answer is under way, and to close after;
- `pipeline`: its length; every request in it is held in memory;
- `flow.write_paused`: whether the client is behind with reading;
- `send_400_response`, `handle_websocket_upgrade`: replaced, so that these close as all others do.
"""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from itertools import chain
from typing import Any, ClassVar, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.connections import Connections, Group
from api.problems import problem

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers. One that comes in the same read as what was before it may have what
one read brings, 256 KiB."""
MAX_PIPELINED = 32
"""Requests that wait behind the one that is answered."""
WRITE_BUFFER_BYTES = 16 * 1024
"""What may wait to be sent before a client counts as slow; nothing below it is accounted for."""
UNSENT_KERNEL_BYTES = 64 * 1024
"""The same, in the kernel: it would take megabytes, in which no slow client is seen."""
ALWAYS_ANSWERED = frozenset({b"/health", b"/ready", b"/metrics"})
VANISHED_SECONDS = 60
"""After which a client that acknowledges nothing is given up: its network was cut."""

_TCP_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", VANISHED_SECONDS // 2),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", VANISHED_SECONDS // 2),  # macOS' name of the one above
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", VANISHED_SECONDS // 6),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", VANISHED_SECONDS * 1000),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_KERNEL_BYTES),
)
TCP_OPTIONS = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in _TCP_OPTIONS
    if hasattr(socket, name)
)


class Refusal:
    """An answer that needs no application: an ASGI application itself, or plain bytes."""

    def __init__(self, status: int, code: str, detail: str, *, retry_seconds: int = 0) -> None:
        headers = {"Connection": "close"}
        if retry_seconds:
            headers["Retry-After"] = str(retry_seconds)
        answer = problem(status, code, detail, retryable=retry_seconds > 0, headers=headers)
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": answer.raw_headers,
        }
        self._body = bytes(answer.body)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.as_bytes = b"\r\n".join([*lines, b"", self._body])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)
        await send({"type": "http.response.body", "body": self._body, "more_body": True})
        # Most clients read no answer before they have sent their body.
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.body", "body": b""})


BUSY = Refusal(
    503,
    "too_many_connections",
    "The gateway has as many connections as it can hold; try again shortly.",
    retry_seconds=5,
)
HEAD_TOO_LARGE = Refusal(
    431, "head_too_large", f"A request's head may have {MAX_HEAD_BYTES:,} bytes at most."
)
HEAD_TOO_LATE = Refusal(
    408, "request_timeout", "The request's head did not arrive in time.", retry_seconds=1
)
NOT_HTTP = Refusal(400, "bad_request", "This is not a valid HTTP request.")
NO_WEBSOCKETS = Refusal(
    400, "bad_request", "There are no WebSockets here; GET /result/{id}/events streams changes."
)


class TooManyPipelined(Exception):
    """httptools stops parsing at any error."""


class GuardedProtocol(HttpToolsProtocol):
    guard: ClassVar[Connections]

    # -- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.group: Group | None = None
        self._coming: Group = self.guard.idle
        """Where the connection belongs by what it received, were no request being answered."""
        self._head_bytes = 0
        self._deaf = False
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        _set_tcp_options(transport)
        if not self.guard.enter(self):
            self._deaf = True
            transport.write(BUSY.as_bytes)
            transport.close()
        self._admitted = len(self.guard) <= self.guard.limits.connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.leave(self)
        super().connection_lost(exc)

    def expire(self) -> None:
        if self._coming is self.guard.heads:
            self._refuse(HEAD_TOO_LATE, "head_timeout")
            return
        if self.group is self.guard.heads:  # not a byte of one came: there is nobody to answer
            self.guard.count_end("head_timeout")
        elif self.group is self.guard.bodies:
            self.guard.count_end("unread_body")
        self.guard.close(self)

    # -- the request ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        guard = self.guard
        if self.group is guard.idle:
            guard.move(self, guard.heads)
        if self._coming is not guard.bodies:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._deaf:
            self._refuse(HEAD_TOO_LARGE, "head_too_large")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyPipelined
        super().on_message_begin()
        self._coming = self.guard.heads
        if self.group is self.guard.idle:  # it came with the end of the request before
            self.guard.move(self, self.guard.heads)

    def on_headers_complete(self) -> None:
        self.guard.move(self, None)
        self._coming = self.guard.bodies
        refusal, reason = self._refusal()
        self._head_bytes = 0
        if refusal is not None:
            self.app = cast(Any, refusal)
        super().on_headers_complete()
        closes = refusal is not None or not self._admitted
        if closes and self.cycle is not None:  # None: it asks for a WebSocket
            self.cycle.keep_alive = False
        if refusal is not None:
            self.guard.count_end(reason)
            self.guard.move(self, self.guard.leaving)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._coming = self.guard.idle
        self._settle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._settle()

    # -- the answer -------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.guard.stall(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.guard.flow(self)
        self._settle()

    def send_400_response(self, msg: str) -> None:
        self._refuse(NOT_HTTP, "not_http")

    def handle_websocket_upgrade(self) -> None:
        self._refuse(NO_WEBSOCKETS, "not_http")

    # -- ours -------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Join the group of those that wait for the client, if nothing is to be answered."""
        if self._answering or self.flow.write_paused or self.group is self.guard.leaving:
            return
        self.guard.move(self, self._coming)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refusal(self) -> tuple[Refusal | None, str]:
        """What a request gets whose head is complete, and why, if not what it asks for."""
        if self._head_bytes > MAX_HEAD_BYTES:  # perhaps with the beginning of a body
            size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
            if size > MAX_HEAD_BYTES:
                return HEAD_TOO_LARGE, "head_too_large"
        if not self._admitted:
            self._admitted = self.guard.has_room()
            if not self._admitted and self.url.partition(b"?")[0] not in ALWAYS_ANSWERED:
                return BUSY, "refused"
        return None, ""

    def _refuse(self, refusal: Refusal, reason: str) -> None:
        """End the connection from outside of any request, with an answer if it is its turn."""
        self._deaf = True
        self.guard.count_end(reason)
        if self._answering or self.transport.is_closing():
            self.guard.close(self)
            return
        self.transport.write(refusal.as_bytes)
        self.transport.write_eof()
        self.guard.move(self, self.guard.leaving)


def protocol_for(connections: Connections) -> type[GuardedProtocol]:
    """The protocol of one gateway, for `uvicorn.run(http=...)`."""

    class GatewayProtocol(GuardedProtocol):
        guard = connections

    return GatewayProtocol


def _set_tcp_options(transport: asyncio.Transport) -> None:
    accepted = transport.get_extra_info("socket")
    if accepted is None or accepted.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Not by `accepted` itself: uvloop makes a socket object for every option.
    kind = (accepted.family, accepted.type, accepted.proto)
    connected = socket.socket(*kind, fileno=accepted.fileno())
    try:
        for level, option, value in TCP_OPTIONS:
            connected.setsockopt(level, option, value)
    except OSError:
        pass  # macOS: the client has gone already
    finally:
        connected.detach()
