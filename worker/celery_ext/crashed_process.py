"""What happens when a pool process crashes or hangs: the parent notices, and ends the attempts of
the jobs that it ran.

Two mechanisms notice a crash. `AsynPool` does at once, when the process' files close. The lease of
the job is the net below: it runs out if the parent died as well (heartbeat.py).
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.concurrency import asynpool, prefork
from celery.worker.request import Request

from shared.logs import about_task
from worker.abandoned_attempt import abandon_attempt
from worker.celery_ext import heartbeat
from worker.process.parent import parent
from worker.process.shared_memory import BATCH_ATTEMPT

log = logging.getLogger("yolo_queue.worker")

REAP_SECONDS = 0.1
ARGUMENT_CHARACTERS = 100
"""Shown of an inline task's arguments, one of which is a Base64 image."""


class AsynPool(asynpool.AsynPool):  # type: ignore[misc]
    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """A process closes its files a moment before it can be waited for. If Celery asks in
        between, the process still counts as alive, and Celery asks again only at its next round, up
        to 5 s later. So ask until it is gone."""
        self._untrack_child_process(proc, hub)
        self._reap(hub, proc)

    def _reap(self, hub: Any, proc: Any) -> None:
        self.maintain_pool()
        if proc in self._pool:
            hub.call_later(REAP_SECONDS, self._reap, hub, proc)
        else:
            log.warning("pool process %s has ended; another one takes its place", proc.pid)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]
    Pool = AsynPool


class JobRequest(Request):  # type: ignore[misc]
    """Ends the attempts of a process that died or was killed for its time limit."""

    @property
    def argsrepr(self) -> str:
        """Shortened: events carry it to Flower, which keeps it for thousands of tasks."""
        return str(super().argsrepr)[:ARGUMENT_CHARACTERS]

    @property
    def kwargsrepr(self) -> str:
        return str(super().kwargsrepr)[:ARGUMENT_CHARACTERS]

    def on_timeout(self, soft: bool, timeout: float) -> None:
        with about_task(self.id):
            super().on_timeout(soft, timeout)
            if not soft:
                self._abandon_attempts("timeout")

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        with about_task(self.id):
            super().on_failure(exc_info, send_failed_event, return_ok)
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            # SystemExit is how billiard reports a process that left in the middle of a job.
            if isinstance(error, WorkerLostError | SystemExit):
                self._abandon_attempts("worker_lost")

    def _abandon_attempts(self, reason: str) -> None:
        """Of the job that Celery knows of, and of those that shared its forward pass."""
        store, worker = heartbeat.parent_store(), parent()
        if store is None:
            return
        row = worker.memory.parent_row
        abandon_attempt(store, row, self.id, reason, worker=worker.name)
        for other in worker.memory.batched_with([self.id]):
            with about_task(other):
                abandon_attempt(store, row, other, reason, attempt=BATCH_ATTEMPT)
