"""Limits how many connections the gateway holds, how long each may wait and how slowly it may read.

A connection is either answering a request or in one of four states, each with a timeout:

    READING A HEAD ─► answering ─► IDLE ─► READING A HEAD ─► ...
                          ├──────► UNREAD BODY ─► IDLE    (answered before its body had arrived)
                          └──────► CLOSING

A state keeps its connections in the order of their entry, and all have the same timeout. So expired
connections come first: one check a second replaces a timer for each request.

api/http_protocol.py parses what arrives on a connection and calls the limiter.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from api.open_files import ConnectionLimits

log = logging.getLogger("yolo_queue.api")

HEAD_SECONDS = 10.0
"""For the request line and headers, from the connection or from their first byte."""
KEEP_ALIVE_SECONDS = 30
"""For the next request on a connection."""
UNREAD_BODY_SECONDS = 60.0
"""For the rest of a body whose request has been answered already."""
CLOSING_SECONDS = 2.0
"""From the last response to the end of the connection. Closing at once while the client still sends
would reset the connection, and the client might never read the response."""
SLOW_READER_GRACE_SECONDS = 20.0
MIN_READ_BYTES_PER_SECOND = 8 * 1024
"""A client that falls behind must read this fast on average, once the grace is over."""
SWEEP_SECONDS = 1.0
WARNING_SECONDS = 60.0
"""The same warning is logged at most this often."""
WARN_RATIO = 0.9

REASONS = (
    *("head_timeout", "head_too_large", "not_http", "unread_body"),
    *("slow_reader", "response_memory", "room_made", "refused"),
)
"""Why the gateway ended a connection that its client would have kept."""


class State(dict["Connection", float]):
    """The connections in one state and when each entered it (`monotonic`), oldest first."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds


class Connection(Protocol):
    """What the limiter needs to know of a connection."""

    transport: asyncio.Transport
    state: State | None
    """None while a request is being answered."""

    def on_timeout(self) -> None:
        """The connection has stayed in its state for too long."""


@dataclass(frozen=True, slots=True)
class _SlowReader:
    since: float
    unsent_bytes: int

    def too_slow(self, now: float, unsent_bytes: int) -> bool:
        counted_seconds = now - self.since - SLOW_READER_GRACE_SECONDS
        sent_bytes = self.unsent_bytes - unsent_bytes
        return sent_bytes < counted_seconds * MIN_READ_BYTES_PER_SECOND


class ConnectionLimiter:
    """All connections of one gateway. Call its methods from the event loop only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.reading_head = State(HEAD_SECONDS)
        self.idle = State(KEEP_ALIVE_SECONDS)
        self.unread_body = State(UNREAD_BODY_SECONDS)
        self.closing = State(CLOSING_SECONDS)
        self.unsent_bytes = 0
        self.count_end: Callable[[str], None] = lambda reason: None
        """Called with one of `REASONS`."""
        self._open: set[Connection] = set()
        self._slow_readers: dict[Connection, _SlowReader] = {}
        self._warned_at: dict[str, float] = {}
        self._sweeping = False

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Take in a new connection. False: every place, the reserve included, is busy."""
        if len(self._open) >= self.limits.connections + self.limits.reserve:
            oldest = _longest_waiting(self.closing, self.reading_head, self.idle, self.unread_body)
            if oldest is None:
                self.count_end("refused")
                return False
            self.count_end("room_made")
            self._abort(oldest)
        self._open.add(connection)
        self.move(connection, self.reading_head)
        if len(self._open) > WARN_RATIO * self.limits.connections:
            self._warn(
                "%d of at most %d connections are open. If these are real clients, raise %s or run "
                "more gateways. If not, find out who opens connections and sends no requests.",
                *(len(self._open), self.limits.connections, self.limits.what_to_raise),
            )
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        return True

    def make_room(self) -> bool:
        """Whether a request on a connection above the limit may be answered after all. If need be,
        closes the connection that has waited longest without a request."""
        if len(self._open) - len(self.closing) <= self.limits.connections:
            return True
        oldest = _longest_waiting(self.reading_head, self.idle, self.unread_body)
        if oldest is None:
            return False
        self.count_end("room_made")
        self.close(oldest)
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has been closed."""
        self._open.discard(connection)
        self.move(connection, None)
        self.resume_writing(connection)

    def move(self, connection: Connection, state: State | None) -> None:
        if connection.state is not None:
            connection.state.pop(connection, None)
        connection.state = state
        if state is not None:
            state[connection] = monotonic()

    def pause_writing(self, connection: Connection) -> None:
        """The client reads more slowly than the gateway writes. If the limit on unsent bytes is
        exceeded, resets the connections that have been behind the longest."""
        # Counted in full until all of it is sent: the event loop keeps a response in one piece.
        unsent = connection.transport.get_write_buffer_size()
        self._slow_readers[connection] = _SlowReader(monotonic(), unsent)
        self.unsent_bytes += unsent
        while self.unsent_bytes > self.limits.response_bytes:
            self._warn(
                "Responses that slow clients have not read exceed %d bytes "
                "(MAX_GATEWAY_RESPONSE_BYTES); disconnecting the client that is behind the longest",
                self.limits.response_bytes,
            )
            self._reset(next(iter(self._slow_readers)), "response_memory")

    def resume_writing(self, connection: Connection) -> None:
        """The response has been sent, or never will be."""
        if reader := self._slow_readers.pop(connection, None):
            self.unsent_bytes -= reader.unsent_bytes

    def close(self, connection: Connection) -> None:
        """Close a connection once its response is sent, after `CLOSING_SECONDS` at the latest."""
        connection.transport.close()
        self.move(connection, self.closing)

    def _sweep(self) -> None:
        self._sweeping = bool(self._open)
        if self._sweeping:
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        now = monotonic()
        for state in (self.reading_head, self.idle, self.unread_body, self.closing):
            for connection, since in list(state.items()):
                if now - since < state.timeout_seconds:
                    break
                if state is self.closing:
                    self._abort(connection)
                else:
                    connection.on_timeout()
        for connection, reader in list(self._slow_readers.items()):
            if reader.too_slow(now, connection.transport.get_write_buffer_size()):
                self._reset(connection, "slow_reader")

    def _reset(self, connection: Connection, reason: str) -> None:
        """End a connection at once. The kernel drops what it has not sent yet, too."""
        self.count_end(reason)
        accepted = connection.transport.get_extra_info("socket")
        if accepted is not None:
            with suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._abort(connection)

    def _abort(self, connection: Connection) -> None:
        self.move(connection, None)
        self.resume_writing(connection)
        connection.transport.abort()

    def _warn(self, message: str, *args: object) -> None:
        now = monotonic()
        if now - self._warned_at.get(message, -WARNING_SECONDS) >= WARNING_SECONDS:
            self._warned_at[message] = now
            log.warning(message, *args)


def _longest_waiting(*states: State) -> Connection | None:
    firsts = [next(iter(state.items())) for state in states if state]
    return min(firsts, key=lambda first: first[1])[0] if firsts else None
