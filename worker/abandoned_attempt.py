"""Abandons an attempt that brought no outcome: its job is queued again or becomes a dead letter."""

from __future__ import annotations

import logging

from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from worker.process.shared_memory import ProcessRow

log = logging.getLogger("yolo_queue.worker")


def abandon_attempt(
    store: WorkerStore,
    row: ProcessRow,
    task_id: str,
    reason: str,
    *,
    attempt: int | None = None,
    worker: str = "",
) -> bool:
    """End, count and log an attempt, named by its number or its worker (`WorkerStore.abandon`).

    Returns False if the attempt no longer held the job.
    """
    try:
        outcome = store.abandon(task_id, reason, attempt=attempt, worker=worker)
    except UNAVAILABLE:
        outcome = "Redis is unavailable, so its lease will run out"
    log.warning("attempt abandoned (%s): %s", reason, outcome)
    if outcome == "stale":
        return False
    row.count_end(reason)
    return True
