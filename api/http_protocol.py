"""Uvicorn's HTTP protocol with limits on request heads, pipelining and slow readers.

There is one `LimitedHttpProtocol` a connection. It tells the `ConnectionLimiter` in which state the
connection is; the limiter calls `on_timeout` when it stays there for too long. A gateway started as
`uvicorn --factory api.app:create_app` runs without these limits.

Besides the callbacks of asyncio and httptools that it extends, it uses these undocumented parts of
uvicorn's `HttpToolsProtocol` (as of 0.54):

- `app`: replaced for a refused request, so that the refusal is sent in its turn;
- `url`, `headers`: measured once a head is complete;
- `cycle.response_complete`, `cycle.keep_alive`: whether a request is being answered, and whether
  the connection stays open after it;
- `pipeline`: its length, since every request in it is held in memory;
- `flow.write_paused`: whether the client reads too slowly;
- `send_400_response`, `handle_websocket_upgrade`: replaced, so that they close the connection as
  every other refusal does.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import chain
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.connection_limiter import ConnectionLimiter, State
from api.refusals import (
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    NO_WEBSOCKETS,
    NOT_HTTP,
    TOO_MANY_CONNECTIONS,
    Refusal,
)

MAX_PIPELINED = 32
"""Requests that wait behind the one that is being answered."""
WRITE_BUFFER_BYTES = 16 * 1024
"""A client with more unsent bytes than this is a slow reader. Fewer are not counted."""
UNSENT_KERNEL_BYTES = 64 * 1024
"""Unsent bytes in the kernel's buffer. By default it takes megabytes, which would hide a slow
reader."""
ALWAYS_ANSWERED = frozenset({b"/health", b"/ready", b"/metrics"})
VANISHED_SECONDS = 60
"""The kernel closes a connection whose client has acknowledged nothing for so long: its network
was cut."""

_TCP_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", VANISHED_SECONDS // 2),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", VANISHED_SECONDS // 2),  # TCP_KEEPIDLE on macOS
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


class TooManyPipelined(Exception):
    """Raised in a callback of httptools, which stops parsing at any error."""


class LimitedHttpProtocol(HttpToolsProtocol):
    limiter: ClassVar[ConnectionLimiter]

    # -- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.state: State | None = None
        self._next_state: State = self.limiter.idle
        """To enter once no request is being answered. It follows from what has been received."""
        self._head_bytes = 0
        self._ignores_input = False
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        _set_tcp_options(transport)
        if not self.limiter.add(self):
            self._ignores_input = True
            transport.write(TOO_MANY_CONNECTIONS.as_bytes)
            transport.close()
        self._within_limit = self.limiter.open_connections <= self.limiter.limits.connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.limiter.remove(self)
        super().connection_lost(exc)

    def on_timeout(self) -> None:
        if self._next_state is self.limiter.reading_head:
            self._refuse(HEAD_TIMEOUT, "head_timeout")
            return
        if self.state is self.limiter.reading_head:  # not a byte arrived: there is no request
            self.limiter.count_end("head_timeout")
        elif self.state is self.limiter.unread_body:
            self.limiter.count_end("unread_body")
        self.limiter.close(self)

    # -- the request ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        limiter = self.limiter
        if self.state is limiter.idle:
            limiter.move(self, limiter.reading_head)
        if self._next_state is not limiter.unread_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._ignores_input:
            self._refuse(HEAD_TOO_LARGE, "head_too_large")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyPipelined
        super().on_message_begin()
        self._next_state = self.limiter.reading_head
        if self.state is self.limiter.idle:  # it arrived with the end of the previous request
            self.limiter.move(self, self.limiter.reading_head)

    def on_headers_complete(self) -> None:
        self.limiter.move(self, None)
        self._next_state = self.limiter.unread_body
        refusal, reason = self._refusal()
        self._head_bytes = 0
        if refusal is not None:
            self.app = cast(Any, refusal)
        super().on_headers_complete()
        closes = refusal is not None or not self._within_limit
        if closes and self.cycle is not None:  # None: it asks for a WebSocket
            self.cycle.keep_alive = False
        if refusal is not None:
            self.limiter.count_end(reason)
            self.limiter.move(self, self.limiter.closing)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._next_state = self.limiter.idle
        self._enter_next_state()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._enter_next_state()

    # -- the response -----------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.limiter.pause_writing(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.limiter.resume_writing(self)
        self._enter_next_state()

    def send_400_response(self, msg: str) -> None:
        self._refuse(NOT_HTTP, "not_http")

    def handle_websocket_upgrade(self) -> None:
        self._refuse(NO_WEBSOCKETS, "not_http")

    # -- ours -------------------------------------------------------------------------------

    def _enter_next_state(self) -> None:
        """Start to wait for the client, unless the gateway still has something to send."""
        if self._answering or self.flow.write_paused or self.state is self.limiter.closing:
            return
        self.limiter.move(self, self._next_state)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refusal(self) -> tuple[Refusal | None, str]:
        """Whether to refuse the request whose head is complete: the response, and its reason."""
        if self._head_bytes > MAX_HEAD_BYTES:  # may include the beginning of the body
            size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
            if size > MAX_HEAD_BYTES:
                return HEAD_TOO_LARGE, "head_too_large"
        if not self._within_limit:
            self._within_limit = self.limiter.make_room()
            if not self._within_limit and self.url.partition(b"?")[0] not in ALWAYS_ANSWERED:
                return TOO_MANY_CONNECTIONS, "refused"
        return None, ""

    def _refuse(self, refusal: Refusal, reason: str) -> None:
        """End the connection outside of any request. Sends the refusal unless a response is on its
        way: it would be read as part of that one."""
        self._ignores_input = True
        self.limiter.count_end(reason)
        if self._answering or self.transport.is_closing():
            self.limiter.close(self)
            return
        self.transport.write(refusal.as_bytes)
        self.transport.write_eof()
        self.limiter.move(self, self.limiter.closing)


def protocol_for(limiter: ConnectionLimiter) -> type[LimitedHttpProtocol]:
    """The protocol class of one gateway, for `uvicorn.run(http=...)`."""
    return type("GatewayProtocol", (LimitedHttpProtocol,), {"limiter": limiter})


def _set_tcp_options(transport: asyncio.Transport) -> None:
    accepted = transport.get_extra_info("socket")
    if accepted is None or accepted.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Not with `accepted` itself: uvloop would make a socket object for every option.
    kind = (accepted.family, accepted.type, accepted.proto)
    connected = socket.socket(*kind, fileno=accepted.fileno())
    try:
        for level, option, value in TCP_OPTIONS:
            connected.setsockopt(level, option, value)
    except OSError:
        pass  # macOS: the client has already gone
    finally:
        connected.detach()
