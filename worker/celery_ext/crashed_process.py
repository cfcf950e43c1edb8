"""Owns what the worker's parent does when a pool process dies in the middle of a job."""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from shared.job.worker_store import WorkerStore
from shared.logs import about_task
from shared.redis_access.client import UNAVAILABLE
from worker.celery_ext import heartbeat as presence
from worker.process import child as pool_process
from worker.process.mates import MATES_ATTEMPT

log = logging.getLogger("yolo_queue.worker")


class JobRequest(Request):  # type: ignore[misc]
    """Ends the attempt at once. Without it the lease would run out and do the same, later."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        with about_task(self.id):
            super().on_timeout(soft, timeout)
            if not soft:
                self._abandon("timeout")

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        with about_task(self.id):
            super().on_failure(exc_info, send_failed_event, return_ok)
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            # SystemExit is how billiard reports a process that left in the middle of a job.
            if isinstance(error, WorkerLostError | SystemExit):
                self._abandon("worker_lost")

    def _abandon(self, reason: str) -> None:
        store = presence.parent_store()
        if store is None:
            return
        self._give_back(store, self.id, reason, worker=pool_process.worker_name())
        if self.app.settings.micro_batch_jobs > 1:
            for mate in pool_process.mates_of([self.id]):
                with about_task(mate):
                    self._give_back(store, mate, reason, attempt=MATES_ATTEMPT)

    def _give_back(self, store: WorkerStore, task_id: str, reason: str, **held: Any) -> None:
        try:
            outcome = store.abandon(task_id, reason, **held)
        except UNAVAILABLE:
            log.warning("%s; its lease will run out", reason)
        else:
            log.warning("attempt ended by %s: %s", reason, outcome)
            if outcome == "stale":  # it had its outcome before the process died
                return
        pool_process.parent_tally().ended(reason)
