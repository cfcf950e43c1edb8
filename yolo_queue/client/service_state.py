"""The state of the service: its queue, its workers and its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerState:
    """`ready` of its `processes` have loaded the models and take jobs; `running` have a job.
    `models`: the models that it serves, with their versions."""

    name: str
    processes: int
    ready: int
    running: int
    models: Mapping[str, str] = field(default_factory=dict)


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
    models: tuple[ModelState, ...] = ()
    """Each model's part of the queue, without versions and classes."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QueueState:
        workers = tuple(WorkerState(**_known(WorkerState, one)) for one in data["workers"])
        models = tuple(map(ModelState.from_json, data.get("models") or ()))
        return cls(**{**_known(cls, data), "workers": workers, "models": models})


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model in one version, with who serves it now. `version`: SHA-256 of the weights."""

    version: str
    task: str
    names: Mapping[int, str]
    runtimes: tuple[str, ...]
    workers: tuple[str, ...]
    ready_processes: int

    @property
    def short(self) -> str:
        return self.version[:12]


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model, and its part of the queue as in `QueueState`. `names` maps class numbers to names.
    `task` is "" until a worker has loaded the model."""

    model: str
    task: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    default: bool = False
    versions: tuple[ModelVersion, ...] = ()
    depth: int = 0
    in_flight: int = 0
    ready_processes: int = 0
    oldest_age_seconds: float = 0.0
    drain_rate: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelState:
        """From `/model`, which says `model`, or `/models` and `/queue`, which say `name`."""
        given = {
            "model": str(data.get("model") or data.get("name") or ""),
            "task": str(data.get("task") or ""),
            "names": _names(data),
            "versions": tuple(map(_version, data.get("versions") or ())),
        }
        return cls(**{**_known(cls, data), **given})


def _version(data: Mapping[str, Any]) -> ModelVersion:
    lists = {name: tuple(data[name]) for name in ("runtimes", "workers")}
    return ModelVersion(**{**_known(ModelVersion, data), **lists, "names": _names(data)})


def _names(data: Mapping[str, Any]) -> dict[int, str]:
    names = data.get("names") or {}
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {int(number): str(name) for number, name in pairs}


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `kind` in `data`: a newer service may send more."""
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}
