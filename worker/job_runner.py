"""Owns one attempt at a job, from claim to commit."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared import tracing
from shared.errors import ImageMissingInStore, JobError
from shared.job_store import failure_meta, success_meta
from shared.jobs import Attempt, DetectParameters
from shared.logs import about_task
from worker.images import decode, encode_jpeg
from worker.patience import with_patience
from worker.pool_process import PoolProcess

log = logging.getLogger("yolo_queue.worker")


def run_job(process: PoolProcess, task_id: str) -> dict[str, Any]:
    """Claim, work, commit. Returns the result as it was committed, but for the picture.

    Raises `JobError` for a failure that was committed, and Celery's `Ignore` when there is nothing
    to do: the message is a leftover, or another attempt has taken over.
    """
    with about_task(task_id):
        return _run(process, task_id)


def _run(process: PoolProcess, task_id: str) -> dict[str, Any]:
    store = process.store
    attempt = with_patience(lambda: store.claim(task_id, process.worker))
    if isinstance(attempt, str):
        log.info("nothing to do: the job is %s", attempt)
        raise Ignore()
    with tracing.attempt_span(attempt):
        return _carry_out(process, attempt)


def _carry_out(process: PoolProcess, attempt: Attempt) -> dict[str, Any]:
    store, task_id = process.store, attempt.task_id
    try:
        result, jpeg = _work(process, attempt)
    except JobError as failure:
        error = failure
        meta = failure_meta(task_id, error)
        if not with_patience(lambda: store.fail(attempt, meta, error)):
            process.tally.ended("lease_lost")
            raise Ignore() from error
        process.tally.ended("failed")
        log.info("failed: %s", error.code)
        raise
    except SoftTimeLimitExceeded as error:
        _abandon(process, attempt, "timeout")
        raise Ignore() from error
    except Exception as error:
        log.exception("unexpected error")
        _abandon(process, attempt, "internal")
        raise Ignore() from error
    meta = success_meta(task_id, result, jpeg)
    with tracing.span("commit"):
        committed = with_patience(lambda: store.complete(attempt, meta))
    if not committed:
        process.tally.ended("lease_lost")
        log.warning("attempt %d lost its lease; nothing committed", attempt.number)
        raise Ignore()
    process.tally.completed(
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


def _abandon(process: PoolProcess, attempt: Attempt, reason: str) -> None:
    outcome = with_patience(
        lambda: process.store.abandon(attempt.task_id, reason, attempt=attempt.number)
    )
    process.tally.ended("lease_lost" if outcome == "stale" else reason)
    log.warning("attempt %d ended by %s: %s", attempt.number, reason, outcome)


def _work(process: PoolProcess, attempt: Attempt) -> tuple[dict[str, Any], bytes | None]:
    """The result without its picture, and the picture as a JPEG if one was asked for."""
    settings, record = process.settings, attempt.record
    parameters = DetectParameters.model_validate(record.parameters)
    with tracing.span("fetch"):
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
    jpeg = None
    if prediction.annotated is not None:
        jpeg = encode_jpeg(prediction.annotated, quality=settings.annotated_jpeg_quality)
    end = time.perf_counter()

    infer_seconds = prediction.infer_ms / 1000
    tracing.stages(
        begin,
        decode=decoded_at - begin,
        infer=infer_seconds,
        draw=end - decoded_at - infer_seconds,
    )
    queue_ms = float((record.started_ms or record.created_ms) - record.created_ms)
    result: dict[str, Any] = {
        "model": process.detector.model_name,
        "task": process.detector.task,
        "width": decoded.width,
        "height": decoded.height,
        "detections": prediction.detections,
        "timings_ms": {
            "queue": round(queue_ms, 1),
            "decode": round((decoded_at - begin) * 1000, 1),
            "infer": round(prediction.infer_ms, 1),
            "draw": round(prediction.draw_ms + (end - begin_encode) * 1000, 1),
            "total": round(queue_ms + (end - begin) * 1000, 1),
        },
    }
    if jpeg is None:
        result["image"] = None
    return result, jpeg


def side_needed(parameters: DetectParameters, annotated_max_side: int) -> int:
    """Longer side in pixels that the network and the picture can use; 0 if all of it."""
    if parameters.annotate:
        return max(parameters.imgsz, annotated_max_side) if annotated_max_side else 0
    return parameters.imgsz
