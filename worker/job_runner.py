"""Owns one attempt at a job, from claim to commit."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared.errors import ImageMissingInStore, JobError
from shared.job_store import failure_meta, success_meta
from shared.jobs import Attempt, DetectParameters
from shared.logs import current_task_id
from worker.images import decode, encode_jpeg
from worker.patience import with_patience
from worker.pool_process import PoolProcess

log = logging.getLogger("yolo_queue.worker")


def run_job(process: PoolProcess, task_id: str) -> dict[str, Any]:
    """Claim, work, commit. Returns the result as it was committed.

    Raises `JobError` for a failure that was committed, and Celery's `Ignore` when there is nothing
    to do: the message is a leftover, or another attempt has taken over.
    """
    token = current_task_id.set(task_id)
    try:
        return _run(process, task_id)
    finally:
        current_task_id.reset(token)


def _run(process: PoolProcess, task_id: str) -> dict[str, Any]:
    store = process.store
    attempt = with_patience(lambda: store.claim(task_id, process.worker))
    if isinstance(attempt, str):
        log.info("nothing to do: the job is %s", attempt)
        raise Ignore()
    try:
        result = _work(process, attempt)
    except JobError as failure:
        error = failure
        meta = failure_meta(task_id, error)
        if not with_patience(lambda: store.fail(attempt, meta, error)):
            raise Ignore() from error
        log.info("failed: %s", error.code)
        raise
    except SoftTimeLimitExceeded as error:
        _abandon(process, attempt, "timeout")
        raise Ignore() from error
    except Exception as error:
        log.exception("unexpected error")
        _abandon(process, attempt, "internal")
        raise Ignore() from error
    if not with_patience(lambda: store.complete(attempt, success_meta(task_id, result))):
        log.warning("attempt %d lost its lease; nothing committed", attempt.number)
        raise Ignore()
    log.info(
        "completed: %d detections in %.0f ms",
        len(result["detections"]),
        result["timings_ms"]["total"] - result["timings_ms"]["queue"],
    )
    return result


def _abandon(process: PoolProcess, attempt: Attempt, reason: str) -> None:
    outcome = with_patience(
        lambda: process.store.abandon(attempt.task_id, reason, attempt=attempt.number)
    )
    log.warning("attempt %d ended by %s: %s", attempt.number, reason, outcome)


def _work(process: PoolProcess, attempt: Attempt) -> dict[str, Any]:
    settings, record = process.settings, attempt.record
    parameters = DetectParameters.model_validate(record.parameters)
    image = with_patience(lambda: process.store.image(attempt.task_id))
    if image is None:
        raise ImageMissingInStore("The image is no longer in Redis; please send it again.")

    begin = time.perf_counter()
    decoded = decode(
        image,
        max_pixels=settings.max_image_pixels,
        min_side=side_needed(parameters, settings.annotated_max_side),
    )
    decoded_at = time.perf_counter()
    prediction = process.detector.predict(decoded, parameters)
    begin_encode = time.perf_counter()
    picture = None
    if prediction.annotated is not None:
        jpeg = encode_jpeg(prediction.annotated, quality=settings.annotated_jpeg_quality)
        picture = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    end = time.perf_counter()

    queue_ms = float((record.started_ms or record.created_ms) - record.created_ms)
    return {
        "model": process.detector.model_name,
        "task": process.detector.task,
        "width": decoded.width,
        "height": decoded.height,
        "detections": prediction.detections,
        "image": picture,
        "timings_ms": {
            "queue": round(queue_ms, 1),
            "decode": round((decoded_at - begin) * 1000, 1),
            "infer": round(prediction.infer_ms, 1),
            "draw": round(prediction.draw_ms + (end - begin_encode) * 1000, 1),
            "total": round(queue_ms + (end - begin) * 1000, 1),
        },
    }


def side_needed(parameters: DetectParameters, annotated_max_side: int) -> int:
    """Longer side in pixels that the network and the picture can use; 0 if all of it."""
    if parameters.annotate:
        return max(parameters.imgsz, annotated_max_side) if annotated_max_side else 0
    return parameters.imgsz
