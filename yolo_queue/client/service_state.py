"""The state of the service: its queue, its workers and its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`ready` of its `processes` have loaded the model and take jobs; `running` have a job."""

    name: str
    processes: int
    ready: int
    running: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """`depth` jobs wait and `in_flight` are running. `drain_rate` is in finished jobs a second,
    None if unknown. `finished_total` is None if the gateway does not count."""

    depth: int
    in_flight: int
    ready_processes: int
    oldest_age_seconds: float
    drain_rate: float | None = None
    finished_total: int | None = None
    dead_letters: int
    workers: tuple[WorkerState, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QueueState:
        workers = tuple(WorkerState(**_known(WorkerState, one)) for one in data["workers"])
        return cls(**{**_known(cls, data), "workers": workers})


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


def _known(kind: type[WorkerState | QueueState], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `kind` in `data`: a newer service may send more."""
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
