"""What the queue and the memory of Redis look like at one moment, and what a full queue answers."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import QueueFull
from shared.settings import Settings

SHORT_VERSION = 12
"""Digits of a version that are enough to tell it from others."""

_VERSION = "version:"
"""In front of the names of fields that describe a version of a model."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model in one version. `version`: SHA-256 of the weights. `description`: its task and, if
    they were asked for, the names of its classes."""

    version: str
    described_ms: int
    description: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model's part of the queue; fields as in `QueueState`. `versions`: those that workers have
    described, the latest of those that are served first; none if no worker has loaded it yet."""

    name: str
    depth: int
    """Jobs and parts of jobs."""
    work: int
    """What they are in forward passes."""
    in_flight: int
    oldest_age_seconds: float
    ready_processes: int
    drain_rate: float | None
    stats: dict[str, int]
    versions: tuple[ModelVersion, ...]

    @property
    def queued_bytes(self) -> int:
        return self.stats.get("queued_bytes", 0)

    @property
    def task(self) -> str:
        """Ultralytics' name of what the model does; empty if no worker has loaded it yet."""
        return str(self.versions[0].description.get("task", "")) if self.versions else ""

    @classmethod
    def nobody(cls, name: str) -> ModelState:
        """Of a model that only the gateway's settings name."""
        return cls(name, 0, 0, 0, 0.0, 0, None, {}, ())

    @classmethod
    def from_reply(cls, reply: Sequence[Any], served: Collection[str]) -> ModelState:
        """From what queue.lua returns of a model. `served`: versions that workers have now."""
        name, depth, work, in_flight, oldest_ms, ready, interval_us, flat = reply
        fields = dict(zip((key.decode() for key in flat[::2]), flat[1::2], strict=True))
        versions = [
            _version(key.removeprefix(_VERSION), value.decode())
            for key, value in fields.items()
            if key.startswith(_VERSION)
        ]
        return cls(
            name=name.decode(),
            depth=depth,
            work=work,
            in_flight=in_flight,
            oldest_age_seconds=int(oldest_ms) / 1000,
            ready_processes=ready,
            drain_rate=per_second(float(interval_us)),
            stats={k: int(v) for k, v in fields.items() if not k.startswith(_VERSION)},
            versions=tuple(
                sorted(versions, key=lambda v: (v.version in served, v.described_ms), reverse=True)
            ),
        )


def _version(version: str, text: str) -> ModelVersion:
    described_ms, _, description = text.partition(" ")
    return ModelVersion(version, int(described_ms or 0), json.loads(description or "{}"))


@dataclass(frozen=True, slots=True)
class QueueState:
    """`drain_rate`: forward passes a second while there is a backlog, of which a job without tiles
    is one; None while unknown.
    `stats`: counters of the whole service. `workers`: the last report of each worker by its name.
    `models`: by name, those that workers serve or have served lately.
    """

    in_flight: int
    ready_processes: int
    drain_rate: float | None
    stats: dict[str, int]
    workers: dict[str, dict[str, Any]]
    dead_letters: int
    models: dict[str, ModelState]

    @property
    def depth(self) -> int:
        return sum(model.depth for model in self.models.values())

    @property
    def work(self) -> int:
        return sum(model.work for model in self.models.values())

    @property
    def oldest_age_seconds(self) -> float:
        return max((model.oldest_age_seconds for model in self.models.values()), default=0.0)

    @property
    def queued_bytes(self) -> int:
        return self.stats.get("queued_bytes", 0)

    def limits_of(self, model: str, settings: Settings) -> tuple[int, int]:
        """How many jobs and bytes of a model may wait; as in common.lua, which decides."""
        state = self.models.get(model) or ModelState.nobody(model)
        alone = not any(other.stats for other in self.models.values() if other.name != model)
        share = 1.0 if alone or state.depth == 0 else 0.75
        jobs = settings.max_queue_jobs - (self.depth - state.depth)
        size = settings.max_queue_bytes - (self.queued_bytes - state.queued_bytes)
        return math.ceil(share * jobs), math.ceil(share * size)

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> QueueState:
        """From what queue.lua returns."""
        in_flight, stats, workers, dead, ready, interval_us, models = reply
        reports = {
            name.decode(): json.loads(report)
            for name, report in zip(workers[::2], workers[1::2], strict=True)
        }
        served = {
            version for report in reports.values() for version in report.get("models", {}).values()
        }
        states = [ModelState.from_reply(model, served) for model in models]
        states.sort(key=lambda model: model.name)
        return cls(
            in_flight=in_flight,
            ready_processes=ready,
            drain_rate=per_second(float(interval_us)),
            stats={
                key.decode(): int(value) for key, value in zip(stats[::2], stats[1::2], strict=True)
            },
            workers=reports,
            dead_letters=dead,
            models={state.name: state for state in states},
        )


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """How full Redis is; `max_bytes` is 0 if it has no limit."""

    used_bytes: int
    max_bytes: int


def per_second(interval_us: float) -> float | None:
    """A rate from the microseconds between two jobs; None if the interval is not known (0)."""
    return 1e6 / interval_us if interval_us > 0 else None


def queue_full(depth: int, work: int, drain_rate: float | None) -> QueueFull:
    """The refusal of a full queue. Its `Retry-After` is the time in which a tenth of the queue
    drains, so that clients that come back find room. `work`: what waits, in forward passes."""
    seconds = min(300.0, max(1.0, work / 10 / drain_rate)) if drain_rate else 30.0
    return QueueFull(
        f"The queue is full ({depth} jobs waiting); try again in {math.ceil(seconds)} s.",
        retry_after_seconds=seconds,
    )
