"""How many connections fit, which one is ended first, and who reads too slowly."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from api import connection_limiter, webhook_sender
from api.connection_limiter import (
    CLOSING_SECONDS,
    HEAD_SECONDS,
    MIN_READ_BYTES_PER_SECOND,
    SLOW_READER_GRACE_SECONDS,
    ConnectionLimiter,
    State,
)
from api.open_files import MIN_CONNECTIONS, ConnectionLimits, connection_limits
from shared.errors import StartupError
from shared.redis_access import client as redis_client
from shared.settings import Settings


class FakeTransport:
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
class FakeConnection:
    limiter: ConnectionLimiter
    transport: FakeTransport = field(default_factory=FakeTransport)
    state: State | None = None

    def on_timeout(self) -> None:
        self.limiter.close(self)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection_limiter, "monotonic", clock)
    return clock


class Limiter(ConnectionLimiter):
    """Counts the connections that it ends. Sweeps when the test says so."""

    def __init__(self, limit: int = 4, reserve: int = 2, response_bytes: int = 100_000) -> None:
        super().__init__(ConnectionLimits(limit, reserve, response_bytes, "MAX_CONNECTIONS"))
        self._sweeping = True
        self.reasons: Counter[str] = Counter()
        self.count_end = lambda reason: self.reasons.update([reason])

    def sweep(self) -> None:
        async def in_a_loop() -> None:
            self._sweep()

        asyncio.run(in_a_loop())

    def add_some(self, number: int, clock: Clock) -> list[FakeConnection]:
        connections = []
        for _ in range(number):
            clock.now += 0.01
            connections.append(FakeConnection(self))
            assert self.add(connections[-1])
        return connections


# -- how many ---------------------------------------------------------------------------------


def test_the_limit_leaves_room_for_redis_and_for_health_checks() -> None:
    few = connection_limits(Settings(), 256)
    assert (few.connections, few.reserve) == (114, 38)
    assert "ulimit" in few.what_to_raise
    many = connection_limits(Settings(max_connections=500), 100_000)
    assert (many.connections, many.reserve, many.what_to_raise) == (500, 64, "MAX_CONNECTIONS")
    usual = connection_limits(Settings(), 1024).connections
    limited = Settings(rate_limit="1/second")
    fewer = usual - redis_client.MAX_CONNECTIONS
    assert connection_limits(limited, 1024).connections == fewer
    telling = Settings(webhook_secret="whsec_" + "A" * 32)
    assert connection_limits(telling, 1024).connections == usual - webhook_sender.MAX_SENDS


def test_a_gateway_that_could_serve_hardly_anyone_does_not_start() -> None:
    with pytest.raises(StartupError, match="ulimit"):
        connection_limits(Settings(), 120)
    assert connection_limits(Settings(), 150).connections >= MIN_CONNECTIONS


def test_at_the_hard_end_the_longest_without_a_request_goes(clock: Clock) -> None:
    limiter = Limiter()
    busy, *waiting = limiter.add_some(6, clock)
    limiter.move(busy, None)
    (_,) = limiter.add_some(1, clock)
    assert waiting[0].transport.aborted
    assert not busy.transport.aborted
    assert limiter.reasons == {"room_made": 1}


def test_when_all_are_busy_nobody_new_comes_in(clock: Clock) -> None:
    limiter = Limiter()
    for connection in limiter.add_some(6, clock):
        limiter.move(connection, None)
    assert not limiter.add(FakeConnection(limiter))
    assert limiter.open_connections == 6
    assert limiter.reasons == {"refused": 1}


def test_a_request_beyond_the_limit_takes_the_place_of_an_idle_connection(clock: Clock) -> None:
    limiter = Limiter(limit=2)
    asks, idle, busy = limiter.add_some(3, clock)
    limiter.move(asks, None)
    limiter.move(busy, None)
    limiter.move(idle, limiter.idle)
    assert limiter.make_room()
    assert idle.transport.closed
    limiter.remove(idle)
    (late,) = limiter.add_some(1, clock)
    limiter.move(late, None)
    assert not limiter.make_room()


# -- how long ---------------------------------------------------------------------------------


def test_a_sweep_ends_those_that_are_late_and_no_others(clock: Clock) -> None:
    limiter = Limiter()
    late, busy = limiter.add_some(2, clock)
    limiter.move(busy, None)
    clock.now += HEAD_SECONDS - 1
    (early,) = limiter.add_some(1, clock)
    clock.now += 1
    limiter.sweep()
    assert (late.transport.closed, early.transport.closed, busy.transport.closed) == (1, 0, 0)
    assert not late.transport.aborted
    clock.now += CLOSING_SECONDS
    limiter.sweep()
    assert late.transport.aborted, "it was told to close and did not"


# -- how slowly -------------------------------------------------------------------------------


def test_a_reader_is_too_slow_by_its_average(clock: Clock) -> None:
    limiter = Limiter(response_bytes=10_000_000)
    slow, good = limiter.add_some(2, clock)
    for connection in (slow, good):
        limiter.move(connection, None)
        connection.transport.unsent = 1_000_000
        limiter.pause_writing(connection)
    clock.now += SLOW_READER_GRACE_SECONDS - 1
    limiter.sweep()
    assert not slow.transport.aborted, "a pause is no slowness"
    clock.now += 31
    slow.transport.unsent -= 30 * MIN_READ_BYTES_PER_SECOND - 1
    good.transport.unsent -= 30 * MIN_READ_BYTES_PER_SECOND
    limiter.sweep()
    assert slow.transport.aborted
    assert not good.transport.aborted
    assert limiter.reasons == {"slow_reader": 1}
    limiter.resume_writing(good)
    assert limiter.unsent_bytes == 0


def test_all_unsent_answers_together_are_bounded(clock: Clock) -> None:
    limiter = Limiter(response_bytes=100_000)
    first, second, third = limiter.add_some(3, clock)
    for connection in (first, second, third):
        connection.transport.unsent = 40_000
        limiter.pause_writing(connection)
    assert first.transport.aborted
    assert not second.transport.aborted
    assert not third.transport.aborted
    assert limiter.unsent_bytes == 80_000
    assert limiter.reasons == {"response_memory": 1}
    for connection in (first, second, third):
        limiter.remove(connection)
    assert limiter.unsent_bytes == 0
