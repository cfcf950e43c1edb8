"""The bounds on connections: how many fit, who is ended first, who reads too slowly."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from api import connections, webhooks
from api.connections import (
    HEAD_SECONDS,
    LEAST_CONNECTIONS,
    LINGER_SECONDS,
    SLOW_READER_GRACE_SECONDS,
    SLOWEST_READER_BYTES_PER_SECOND,
    Bounds,
    Connections,
    Group,
    bounds,
)
from api.guarded_protocol import TCP_OPTIONS, GuardedProtocol, protocol_for
from shared.errors import StartupError
from shared.redis_access import client as redis_client
from shared.settings import Settings


class Transport:
    def __init__(self) -> None:
        self.unsent = 0
        self.closed = self.aborted = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None


@dataclass(eq=False)
class Line:
    """A connection as `Connections` sees it."""

    all: Connections
    transport: Transport = field(default_factory=Transport)
    group: Group | None = None

    def expire(self) -> None:
        self.all.close(self)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connections, "monotonic", clock)
    return clock


def gateway(*, limit: int = 4, reserve: int = 2, response_bytes: int = 100_000) -> Connections:
    """Ended connections are counted in `reasons`. Its sweeps are for the tests to make."""
    gateway = Connections(Bounds(limit, reserve, response_bytes, "MAX_CONNECTIONS"))
    gateway._sweeping = True
    gateway.reasons = Counter()
    gateway.count_end = lambda reason: gateway.reasons.update([reason])
    return gateway


def entered(gateway: Connections, number: int, clock: Clock) -> list[Line]:
    lines = []
    for _ in range(number):
        clock.now += 0.01
        lines.append(Line(gateway))
        assert gateway.enter(lines[-1])
    return lines


# -- how many ---------------------------------------------------------------------------------


def test_the_limit_leaves_room_for_redis_and_for_health_checks() -> None:
    few = bounds(Settings(), 256)
    assert (few.connections, few.reserve) == (114, 38)
    assert "ulimit" in few.advice
    many = bounds(Settings(max_connections=500), 100_000)
    assert (many.connections, many.reserve, many.advice) == (500, 64, "MAX_CONNECTIONS")
    usual = bounds(Settings(), 1024).connections
    elsewhere = Settings(rate_limit="1/second")
    assert bounds(elsewhere, 1024).connections == usual - redis_client.MAX_CONNECTIONS
    telling = Settings(webhook_secret="whsec_" + "A" * 32)
    assert bounds(telling, 1024).connections == usual - webhooks.MAX_SENDS


def test_a_gateway_that_could_serve_hardly_anyone_does_not_start() -> None:
    with pytest.raises(StartupError, match="ulimit"):
        bounds(Settings(), 120)
    assert bounds(Settings(), 150).connections >= LEAST_CONNECTIONS


def test_at_the_hard_end_the_longest_without_a_request_goes(clock: Clock) -> None:
    everyone = gateway()
    busy, *waiting = entered(everyone, 6, clock)
    everyone.move(busy, None)
    (_,) = entered(everyone, 1, clock)
    assert waiting[0].transport.aborted
    assert not busy.transport.aborted
    assert everyone.reasons == {"room_made": 1}


def test_when_all_are_busy_nobody_new_comes_in(clock: Clock) -> None:
    everyone = gateway()
    for line in entered(everyone, 6, clock):
        everyone.move(line, None)
    assert not everyone.enter(Line(everyone))
    assert len(everyone) == 6
    assert everyone.reasons == {"refused": 1}


def test_a_request_beyond_the_limit_takes_the_place_of_an_idle_connection(clock: Clock) -> None:
    everyone = gateway(limit=2)
    asks, idle, busy = entered(everyone, 3, clock)
    everyone.move(asks, None)
    everyone.move(busy, None)
    everyone.move(idle, everyone.idle)
    assert everyone.has_room()
    assert idle.transport.closed
    everyone.leave(idle)
    (late,) = entered(everyone, 1, clock)
    everyone.move(late, None)
    assert not everyone.has_room()


# -- how long ---------------------------------------------------------------------------------


def test_a_sweep_ends_those_that_are_late_and_no_others(clock: Clock) -> None:
    async def sweep() -> None:
        everyone._sweep()

    everyone = gateway()
    late, busy = entered(everyone, 2, clock)
    everyone.move(busy, None)
    clock.now += HEAD_SECONDS - 1
    (early,) = entered(everyone, 1, clock)
    clock.now += 1
    asyncio.run(sweep())
    assert (late.transport.closed, early.transport.closed, busy.transport.closed) == (1, 0, 0)
    assert not late.transport.aborted
    clock.now += LINGER_SECONDS
    asyncio.run(sweep())
    assert late.transport.aborted, "it was told to close and did not"


# -- how slowly -------------------------------------------------------------------------------


def test_a_reader_is_too_slow_by_its_average(clock: Clock) -> None:
    async def sweep() -> None:
        everyone._sweep()

    everyone = gateway(response_bytes=10_000_000)
    slow, good = entered(everyone, 2, clock)
    for line in (slow, good):
        everyone.move(line, None)
        line.transport.unsent = 1_000_000
        everyone.stall(line)
    clock.now += SLOW_READER_GRACE_SECONDS - 1
    asyncio.run(sweep())
    assert not slow.transport.aborted, "a pause is no slowness"
    clock.now += 31
    slow.transport.unsent -= 30 * SLOWEST_READER_BYTES_PER_SECOND - 1
    good.transport.unsent -= 30 * SLOWEST_READER_BYTES_PER_SECOND
    asyncio.run(sweep())
    assert slow.transport.aborted
    assert not good.transport.aborted
    assert everyone.reasons == {"slow_reader": 1}
    everyone.flow(good)
    assert everyone.unsent_bytes == 0


def test_all_unsent_answers_together_are_bounded(clock: Clock) -> None:
    everyone = gateway(response_bytes=100_000)
    first, second, third = entered(everyone, 3, clock)
    for line in (first, second, third):
        line.transport.unsent = 40_000
        everyone.stall(line)
    assert [line.transport.aborted for line in (first, second, third)] == [True, False, False]
    assert everyone.unsent_bytes == 80_000
    assert everyone.reasons == {"response_memory": 1}
    for line in (first, second, third):
        everyone.leave(line)
    assert everyone.unsent_bytes == 0


# -- what belongs to which request ----------------------------------------------------------------


class FakeSocket(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: object = None) -> None:
        return None


def test_the_rest_of_a_body_that_was_answered_early_is_no_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
        answered.set()

    answered = asyncio.Event()

    async def talk() -> None:
        everyone, transport = gateway(), FakeSocket()
        wire = protocol_for(everyone)(Config(app, log_config=None), ServerState(), {})
        wire.connection_made(transport)  # type: ignore[arg-type]
        assert wire.group is everyone.heads
        wire.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        assert wire.group is None
        await answered.wait()
        answered.clear()
        assert wire.group is everyone.bodies
        wire.data_received(b"x" * 200_000)
        assert wire.group is everyone.bodies
        wire.data_received(b"x" * 100_000 + b"GET / HTTP/1.1\r\nHost: x\r\nx-y: ")
        assert wire.group is everyone.heads
        wire.data_received(b"y" * 60_000 + b"\r\n\r\n")
        assert wire.group is None
        await answered.wait()
        assert wire.group is everyone.idle
        assert transport.written.count(b"HTTP/1.1 ") == 2
        wire.data_received(b"GET / HTTP/1.1\r\n")
        wire.data_received(b"x-y: " + b"y" * 70_000)
        assert b"HTTP/1.1 431 " in transport.written
        assert wire.group is everyone.leaving
        wire.connection_lost(None)
        assert len(everyone) == 0

    asyncio.run(talk())


# -- the socket -------------------------------------------------------------------------------


def test_an_accepted_socket_notices_a_client_that_vanished() -> None:
    """Keepalive finds one that is quiet, TCP_USER_TIMEOUT one that is being written to."""

    async def no_app(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    async def accept() -> None:
        config = Config(no_app, log_config=None)
        everyone = gateway()
        made: list[GuardedProtocol] = []

        class Protocol(GuardedProtocol):
            guard = everyone

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                made.append(self)
                connected.set()

        connected = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.wait_for(connected.wait(), 10)
        accepted = made[0].transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for level, option, value in TCP_OPTIONS:
            if level == socket.IPPROTO_TCP:
                assert accepted.getsockopt(level, option) == value
        writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(accept())
