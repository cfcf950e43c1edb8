"""Bounds how many connections the gateway holds, how long they may idle and how slowly they read.

One `Connections` knows all of a gateway's connections; api/guarded_protocol.py tells it what
happens on each. A connection whose request is not being answered is in one of four groups. Each
group is in the order in which its connections came, so that one look a second at the front of it
finds those that are late, and a request costs no timer.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from api import webhooks
from shared.errors import StartupError
from shared.redis_access import client as redis_client
from shared.settings import Settings

log = logging.getLogger("yolo_queue.api")

HEAD_SECONDS = 10.0
"""How long a request's head may take, from the connection or from the head's first byte."""
KEEP_ALIVE_SECONDS = 30
"""How long a connection may wait for its next request."""
UNREAD_BODY_SECONDS = 60.0
"""How long the rest of a body may take whose request was answered before it was all there."""
LINGER_SECONDS = 2.0
"""From a last answer to the end of its connection. A close while the client still sends would be a
reset, which may take the answer away before it was read."""
SLOW_READER_GRACE_SECONDS = 20.0
SLOWEST_READER_BYTES_PER_SECOND = 8 * 1024
"""On average since its connection began to be behind, after the grace."""
SWEEP_SECONDS = 1.0
WARNING_SECONDS = 60.0
NEAR_LIMIT = 0.9

OWN_DESCRIPTORS = 40
"""Sockets that listen, the log, the event loop, look-ups of names, traces."""
RESERVE = 64
"""Connections beyond the limit, for health checks and for saying 503 to others."""
LEAST_CONNECTIONS = 16
MACOS_OPEN_MAX = 10_240

REASONS = (
    *("head_timeout", "head_too_large", "not_http", "unread_body"),
    *("slow_reader", "response_memory", "room_made", "refused"),
)
"""Why the gateway ended a connection that its client had not done with."""


class Group(dict["Connection", float]):
    """Connections and since when they are in it, the first come first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Connection(Protocol):
    """What `Connections` needs to know of one."""

    transport: asyncio.Transport
    group: Group | None
    """None while a request is being answered."""

    def expire(self) -> None:
        """Its time in its group is over."""


@dataclass(frozen=True, slots=True)
class Bounds:
    connections: int
    reserve: int
    response_bytes: int
    advice: str
    """What to raise when there are too many connections."""


@dataclass(frozen=True, slots=True)
class _Stall:
    since: float
    unsent_bytes: int

    def too_slow(self, now: float, unsent_bytes: int) -> bool:
        counted_seconds = now - self.since - SLOW_READER_GRACE_SECONDS
        sent_bytes = self.unsent_bytes - unsent_bytes
        return sent_bytes < counted_seconds * SLOWEST_READER_BYTES_PER_SECOND


def raise_descriptor_limit() -> int:
    """Raise this process' soft limit on open files to its hard limit; the limit that is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS has no hard limit by default but refuses numbers above one it does not tell.
    for wanted in (hard, MACOS_OPEN_MAX):
        if soft < wanted != resource.RLIM_INFINITY:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return soft


def bounds(settings: Settings, descriptors: int) -> Bounds:
    """How many connections fit under a limit of `descriptors` open files.

    Raises `StartupError` if hardly any do.
    """
    redis_pools = 1 + bool(settings.rate_limit)
    own = redis_pools * redis_client.MAX_CONNECTIONS + OWN_DESCRIPTORS
    if settings.webhook_secret.get_secret_value():
        own += webhooks.MAX_SENDS
    room = descriptors - own
    reserve = min(RESERVE, room // 4)
    if room - reserve < LEAST_CONNECTIONS:
        raise StartupError(
            f"The limit on open files ({descriptors}) leaves no room for connections; raise it to "
            "1,024 or more (`ulimit -n`, LimitNOFILE= of systemd, `--ulimit nofile=` of Docker)."
        )
    if settings.max_connections <= room - reserve:
        advice = "MAX_CONNECTIONS"
    else:
        advice = "the limit on open files (`ulimit -n`, LimitNOFILE=, `--ulimit nofile=`)"
    return Bounds(
        min(settings.max_connections, room - reserve),
        reserve,
        settings.max_gateway_response_bytes,
        advice,
    )


class Connections:
    """The connections of one gateway. Its methods are called from the event loop alone."""

    def __init__(self, limits: Bounds) -> None:
        self.limits = limits
        self.heads = Group(HEAD_SECONDS)
        self.idle = Group(KEEP_ALIVE_SECONDS)
        self.bodies = Group(UNREAD_BODY_SECONDS)
        self.leaving = Group(LINGER_SECONDS)
        self.unsent_bytes = 0
        self.count_end: Callable[[str], None] = lambda reason: None
        """Called with one of `REASONS`."""
        self._open: set[Connection] = set()
        self._stalled: dict[Connection, _Stall] = {}
        self._warned_at: dict[str, float] = {}
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection) -> bool:
        """Take a new connection on; False if there is no descriptor to spare for it."""
        if len(self._open) >= self.limits.connections + self.limits.reserve:
            oldest = _longest_waiting(self.leaving, self.heads, self.idle, self.bodies)
            if oldest is None:
                self.count_end("refused")
                return False
            self.count_end("room_made")
            self._abort(oldest)
        self._open.add(connection)
        self.move(connection, self.heads)
        if len(self._open) > NEAR_LIMIT * self.limits.connections:
            self._warn(
                "%d connections are open, of %d at most. If that many clients are real, raise %s "
                "or run more gateways; if not, look at who connects and sends nothing.",
                *(len(self._open), self.limits.connections, self.limits.advice),
            )
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        return True

    def has_room(self) -> bool:
        """Whether a request on a connection beyond the limit may be answered after all. Ends the
        connection that has been without a request for longest, if that helps."""
        if len(self._open) - len(self.leaving) <= self.limits.connections:
            return True
        oldest = _longest_waiting(self.heads, self.idle, self.bodies)
        if oldest is None:
            return False
        self.count_end("room_made")
        self.close(oldest)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self.move(connection, None)
        self.flow(connection)

    def move(self, connection: Connection, group: Group | None) -> None:
        if connection.group is not None:
            connection.group.pop(connection, None)
        connection.group = group
        if group is not None:
            group[connection] = monotonic()

    def stall(self, connection: Connection) -> None:
        """The client does not read as fast as the gateway writes."""
        # Counted in full until the last of it is sent: the event loop keeps an answer in one piece.
        unsent = connection.transport.get_write_buffer_size()
        self._stalled[connection] = _Stall(monotonic(), unsent)
        self.unsent_bytes += unsent
        while self.unsent_bytes > self.limits.response_bytes:
            self._warn(
                "Answers that clients are slow to read fill %d bytes "
                "(MAX_GATEWAY_RESPONSE_BYTES): the slowest client is cut off.",
                self.limits.response_bytes,
            )
            self._reset(next(iter(self._stalled)), "response_memory")

    def flow(self, connection: Connection) -> None:
        """What had been written is sent, or never will be."""
        if stall := self._stalled.pop(connection, None):
            self.unsent_bytes -= stall.unsent_bytes

    def close(self, connection: Connection) -> None:
        """Close a connection once what was written is sent; in `LINGER_SECONDS` if it is not."""
        connection.transport.close()
        self.move(connection, self.leaving)

    def _sweep(self) -> None:
        self._sweeping = bool(self._open)
        if self._sweeping:
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        now = monotonic()
        for group in (self.heads, self.idle, self.bodies, self.leaving):
            for connection, since in list(group.items()):
                if now - since < group.seconds:
                    break
                if group is self.leaving:
                    self._abort(connection)
                else:
                    connection.expire()
        for connection, stall in list(self._stalled.items()):
            if stall.too_slow(now, connection.transport.get_write_buffer_size()):
                self._reset(connection, "slow_reader")

    def _reset(self, connection: Connection, reason: str) -> None:
        """End a connection at once; the kernel, too, drops what was not sent."""
        self.count_end(reason)
        accepted = connection.transport.get_extra_info("socket")
        if accepted is not None:
            with suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._abort(connection)

    def _abort(self, connection: Connection) -> None:
        self.move(connection, None)
        self.flow(connection)
        connection.transport.abort()

    def _warn(self, message: str, *args: object) -> None:
        now = monotonic()
        if now - self._warned_at.get(message, -WARNING_SECONDS) >= WARNING_SECONDS:
            self._warned_at[message] = now
            log.warning(message, *args)


def _longest_waiting(*groups: Group) -> Connection | None:
    firsts = [next(iter(group.items())) for group in groups if group]
    return min(firsts, key=lambda first: first[1])[0] if firsts else None
