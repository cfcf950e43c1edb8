"""Owns where this worker's pool differs from Celery's: how soon it knows of a process that died."""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork

REAP_SECONDS = 0.1


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """A process closes its files a moment before it can be waited for. Asked in between, the
        system calls it alive, and Celery looks again only at its next round, up to 5 s later."""
        super()._event_process_exit(hub, proc)
        hub.call_later(REAP_SECONDS, self.maintain_pool)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    Pool = AsynPool
