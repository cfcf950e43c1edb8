"""What the queue and the memory of Redis look like at one moment, and what a full queue answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import QueueFull


@dataclass(frozen=True, slots=True)
class QueueState:
    """`drain_rate`: jobs finished a second while there is a backlog; None while unknown.
    `stats`: counters of the whole service. `workers`: the last report of each worker by its name.
    """

    depth: int
    in_flight: int
    oldest_age_seconds: float
    ready_processes: int
    drain_rate: float | None
    stats: dict[str, int]
    workers: dict[str, dict[str, Any]]
    dead_letters: int

    @property
    def queued_bytes(self) -> int:
        return self.stats.get("queued_bytes", 0)

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> QueueState:
        """From what queue.lua returns."""
        depth, in_flight, oldest_ms, ready, interval_us, stats, workers, dead = reply
        return cls(
            depth=depth,
            in_flight=in_flight,
            oldest_age_seconds=int(oldest_ms) / 1000,
            ready_processes=ready,
            drain_rate=per_second(float(interval_us)),
            stats={
                key.decode(): int(value) for key, value in zip(stats[::2], stats[1::2], strict=True)
            },
            workers={
                name.decode(): json.loads(report)
                for name, report in zip(workers[::2], workers[1::2], strict=True)
            },
            dead_letters=dead,
        )


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """How full Redis is; `max_bytes` is 0 if it has no limit."""

    used_bytes: int
    max_bytes: int


def per_second(interval_us: float) -> float | None:
    """A rate from the microseconds between two jobs; None if the interval is not known (0)."""
    return 1e6 / interval_us if interval_us > 0 else None


def queue_full(depth: int, drain_rate: float | None) -> QueueFull:
    """The refusal of a full queue. Its `Retry-After` is the time in which a tenth of the queue
    drains, so that clients that come back find room."""
    seconds = min(300.0, max(1.0, depth / 10 / drain_rate)) if drain_rate else 30.0
    return QueueFull(
        f"The queue is full ({depth} jobs waiting); try again in {math.ceil(seconds)} s.",
        retry_after_seconds=seconds,
    )
