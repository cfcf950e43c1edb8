"""An attempt at a job, or at a part of one: its claim, its commit, its end without an outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared import tracing
from shared.errors import JobError
from shared.job.celery_result import failure_meta, success_meta
from shared.job.keys import job_of
from shared.job.record import Attempt
from worker.abandoned_attempt import abandon_attempt
from worker.process.child import PoolProcess

log = logging.getLogger("yolo_queue.worker")
T = TypeVar("T")

Outcome = tuple[dict[str, Any], bytes | None]
"""A result without its picture, and the picture as a JPEG if one was asked for."""


def claim(process: PoolProcess, task_id: str) -> Attempt:
    """Raises Celery's `Ignore` if there is nothing to claim."""
    kept = process.kept.task_id == job_of(task_id)
    if not kept:
        process.kept.forget()
    attempt = process.store.claim(
        task_id, process.worker, process.models_taken(), with_image=not kept
    )
    if attempt == "elsewhere":
        process.store.republish(task_id)
        log.info("passed on: this worker does not serve its model")
        raise Ignore()
    if isinstance(attempt, str):
        # With batches a message may be late: its job already runs in somebody's batch.
        level = logging.INFO if process.settings.micro_batch_jobs == 1 else logging.DEBUG
        log.log(level, "nothing to do: the job is %s", attempt)
        raise Ignore()
    return attempt


def carry_out(
    process: PoolProcess, attempt: Attempt, work: Callable[[], Outcome]
) -> dict[str, Any]:
    """Do the work, and commit its outcome. Returns the result without the picture.

    Raises `JobError` for a failure that was committed, and Celery's `Ignore` if the attempt ended
    otherwise.
    """
    result, jpeg = attempted(process, attempt, work)
    meta = success_meta(job_of(attempt.task_id), result, jpeg)
    with tracing.span("commit"):
        committed = process.store.complete(attempt, meta)
    if not committed:
        lease_lost(process, attempt)
    process.row.count_completed(
        result["timings_ms"],
        size_bytes=attempt.record.size_bytes,
        pixels=result["width"] * result["height"],
        detections=len(result["detections"]),
    )
    log.info(
        "completed: %d detections in %.0f ms",
        len(result["detections"]),
        result["timings_ms"]["total"] - result["timings_ms"]["queue"],
    )
    return result


def attempted(process: PoolProcess, attempt: Attempt, work: Callable[[], T]) -> T:
    """Do some of an attempt's work, and end the attempt if that fails. Raises as `carry_out`."""
    try:
        return work()
    except Ignore:
        raise
    except JobError as error:
        meta = failure_meta(job_of(attempt.task_id), error)
        if not process.store.fail(attempt, meta, error):
            lease_lost(process, attempt)
        process.row.count_end("failed")
        log.info("failed: %s", error.code)
        raise
    except SoftTimeLimitExceeded as error:
        abandon(process, attempt, "timeout")
        raise Ignore() from error
    except Exception as error:
        log.exception("unexpected error")
        abandon(process, attempt, "internal")
        raise Ignore() from error


def lease_lost(process: PoolProcess, attempt: Attempt) -> NoReturn:
    """Raises Celery's `Ignore`."""
    process.row.count_end("lease_lost")
    log.warning("attempt %d lost its lease; nothing committed", attempt.number)
    raise Ignore()


def abandon(process: PoolProcess, attempt: Attempt, reason: str) -> None:
    """End an attempt without an outcome; `reason` is `timeout` or `internal`."""
    held = abandon_attempt(
        process.store, process.row, attempt.task_id, reason, attempt=attempt.number
    )
    if not held:
        process.row.count_end("lease_lost")
