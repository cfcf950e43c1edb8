"""Owns what the service says of itself: its queue and its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`ready` of its `processes` have their model and consume; `running` have a job."""

    name: str
    processes: int
    ready: int
    running: int
    model: str


@dataclass(frozen=True, slots=True)
class QueueState:
    """`depth` jobs wait, `in_flight` are being worked on; `drain_rate` is jobs finished a second,
    None while unknown; `finished_total` None where the gateway does not count."""

    depth: int
    in_flight: int
    ready_processes: int
    oldest_age_seconds: float
    drain_rate: float | None
    finished_total: int | None
    dead_letters: int
    workers: tuple[WorkerState, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QueueState:
        total = data.get("finished_total")
        return cls(
            depth=int(data["depth"]),
            in_flight=int(data["in_flight"]),
            ready_processes=int(data["ready_processes"]),
            oldest_age_seconds=float(data["oldest_age_seconds"]),
            drain_rate=data.get("drain_rate"),
            finished_total=None if total is None else int(total),
            dead_letters=int(data["dead_letters"]),
            workers=tuple(
                WorkerState(
                    name=str(worker["name"]),
                    processes=int(worker["processes"]),
                    ready=int(worker["ready"]),
                    running=int(worker["running"]),
                    model=str(worker["model"]),
                )
                for worker in data["workers"]
            ),
        )


@dataclass(frozen=True, slots=True)
class ModelState:
    """`names` maps class numbers to names."""

    model: str
    task: str
    names: Mapping[int, str]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelState:
        names = data.get("names") or {}
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
        return cls(
            model=str(data.get("model") or ""),
            task=str(data.get("task") or ""),
            names={int(number): str(name) for number, name in pairs},
        )
