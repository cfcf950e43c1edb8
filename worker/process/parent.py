"""The parent process of a worker: what it prepares before it forks, and what it knows of its
children.

It imports the heavy libraries once, so that its children share those pages and start faster. It
never makes a model, computes or touches CUDA: those do not survive a fork.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from shared.settings import Settings
from worker.model.preload import preload
from worker.model.runtimes import ServedModel, prepare
from worker.model.weights import fetch
from worker.process.shared_memory import SharedMemory

DOWNLOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Parent:
    """`name`: what the worker's leases are held under. It contains the pid, so that a restarted
    worker never renews the leases of the one before it. `models`: what it serves, by name."""

    name: str
    models: dict[str, ServedModel]
    memory: SharedMemory

    @property
    def models_taken(self) -> list[str]:
        """The models whose jobs this worker takes: all but drained ones (celery_ext/control.py)."""
        return [name for number, name in enumerate(self.models) if not self.memory.drained(number)]


_parent: Parent | None = None


def prepare_parent(settings: Settings, hostname: str) -> Parent:
    """Get the weights ready and load code. Call it before the fork.

    Raises `ModelUnavailable` if there are no weights to serve.
    """
    global _parent
    models = {}
    for name, source in settings.models.items():
        fetch(source.weights, timeout_seconds=DOWNLOAD_SECONDS)
        models[name] = prepare(settings, name)
        preload(models[name])
    _parent = Parent(f"{hostname}/{os.getpid()}", models, SharedMemory(len(models)))
    return _parent


def parent() -> Parent:
    """The worker's parent as it was at the fork; in the parent and in its pool processes."""
    if _parent is None:
        raise RuntimeError("no worker has been prepared in this process")
    return _parent
