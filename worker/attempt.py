"""One attempt at a job, from claim to commit. Several at once: batch.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared import tracing
from shared.errors import ImageMissingInStore, InvalidTask, JobError, TooManyTiles
from shared.job.celery_result import failure_meta, success_meta
from shared.job.record import Attempt, DetectParameters
from shared.logs import about_task
from shared.tiling import Tile, Tiling
from worker.abandoned_attempt import abandon_attempt
from worker.model.detector import Prediction
from worker.model.images import (
    DecodedImage,
    decode,
    encode_jpeg,
    scale_needed,
    side_needed,
)
from worker.process.child import PoolProcess

log = logging.getLogger("yolo_queue.worker")

Outcome = tuple[dict[str, Any], bytes | None]
"""A result without its picture, and the picture as a JPEG if one was asked for."""


def run_job(process: PoolProcess, task_id: str) -> dict[str, Any]:
    """Claim, work, commit. Returns the result as it was committed, without the picture.

    Raises `JobError` for a failure that was committed, and Celery's `Ignore` when there is nothing
    to do: the message is a leftover, or another attempt has taken over.
    """
    with about_task(task_id):
        return run_alone(process, claim(process, task_id))


def claim(process: PoolProcess, task_id: str) -> Attempt:
    """Raises Celery's `Ignore` if there is nothing to claim."""
    attempt = process.store.claim(task_id, process.worker, process.models_taken())
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


def run_alone(process: PoolProcess, attempt: Attempt) -> dict[str, Any]:
    with tracing.attempt_span(attempt):
        return carry_out(process, attempt, lambda: _work(process, attempt))


def carry_out(
    process: PoolProcess, attempt: Attempt, work: Callable[[], Outcome]
) -> dict[str, Any]:
    """Do the work, and commit its outcome."""
    try:
        result, jpeg = work()
    except JobError as error:
        if not process.store.fail(attempt, failure_meta(attempt.task_id, error), error):
            process.row.count_end("lease_lost")
            raise Ignore() from error
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
    meta = success_meta(attempt.task_id, result, jpeg)
    with tracing.span("commit"):
        committed = process.store.complete(attempt, meta)
    if not committed:
        process.row.count_end("lease_lost")
        log.warning("attempt %d lost its lease; nothing committed", attempt.number)
        raise Ignore()
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


def abandon(process: PoolProcess, attempt: Attempt, reason: str) -> None:
    """End an attempt without an outcome; `reason` is `timeout` or `internal`."""
    held = abandon_attempt(
        process.store, process.row, attempt.task_id, reason, attempt=attempt.number
    )
    if not held:
        process.row.count_end("lease_lost")


def _work(process: PoolProcess, attempt: Attempt) -> Outcome:
    parameters = DetectParameters.model_validate(attempt.record.parameters)
    with tracing.span("fetch"):
        image = fetch(process, attempt)
    begin = time.perf_counter()
    decoded = decode_for(process, image, parameters)
    decode_seconds = time.perf_counter() - begin
    tiling, detector = (
        tiling_for(process, attempt, parameters, decoded),
        process.detector_of(attempt),
    )
    if tiling and tiling.count:
        whole = Tile(0, 0, decoded.width, decoded.height)
        begin_infer = time.perf_counter()
        found = detector.find(decoded, [whole, *tiling.tiles], parameters)
        seconds = time.perf_counter() - begin_infer
        prediction = detector.merge(found, decoded, parameters, seconds)
    else:
        prediction = detector.predict(decoded, parameters)
    result, jpeg = outcome_of(process, attempt, decoded, prediction, begin, decode_seconds)
    if tiling:
        result["tiles"] = {"count": tiling.count, "size": tiling.size, "overlap": tiling.overlap}
    return result, jpeg


def fetch(process: PoolProcess, attempt: Attempt) -> bytes:
    """The upload, which usually came with the claim. Raises `ImageMissingInStore`."""
    image = attempt.image
    if image is None:
        image = process.store.image(attempt.task_id)
    if image is None:
        raise ImageMissingInStore("The image is no longer in Redis; please send it again.")
    return image


def decode_for(process: PoolProcess, image: bytes, parameters: DetectParameters) -> DecodedImage:
    """Decode as much of an upload as the network and the picture need."""
    settings = process.settings
    return decode(
        image,
        max_pixels=settings.max_image_pixels,
        min_side=side_needed(parameters, settings.annotated_max_side),
        min_scale=scale_needed(parameters),
    )


def tiling_for(
    process: PoolProcess, attempt: Attempt, parameters: DetectParameters, decoded: DecodedImage
) -> Tiling | None:
    """How to cut the picture; None if the job asks for no tiles. Raises `InvalidTask`."""
    try:
        tiling = parameters.tiling(decoded.width, decoded.height, process.settings.max_tiles)
    except TooManyTiles as error:  # for the gateway or the header of the file, it was not
        raise InvalidTask(error.message) from error
    if tiling and not process.detector_of(attempt).can_tile:
        raise InvalidTask(f"The model {attempt.record.model} classifies whole pictures, not tiles.")
    return tiling


def outcome_of(
    process: PoolProcess,
    attempt: Attempt,
    decoded: DecodedImage,
    prediction: Prediction,
    begin: float,
    decode_seconds: float,
) -> Outcome:
    """Encode the picture and put the result together. `begin` (`time.perf_counter`): when the work
    on this attempt began."""
    record, detector = attempt.record, process.detector_of(attempt)
    begin_encode = time.perf_counter()
    jpeg = None
    if prediction.annotated is not None:
        quality = process.settings.annotated_jpeg_quality
        jpeg = encode_jpeg(prediction.annotated, quality=quality)
    end = time.perf_counter()

    draw_seconds = prediction.draw_ms / 1000 + end - begin_encode
    infer_seconds = prediction.infer_ms / 1000
    tracing.stages(begin, decode=decode_seconds, infer=infer_seconds, draw=draw_seconds)
    # Redis' clock may have been set back while the job waited.
    queue_ms = float(max(0, (record.started_ms or record.created_ms) - record.created_ms))
    result: dict[str, Any] = {
        "model": detector.served.name,
        "model_version": detector.served.version,
        "task": detector.task,
        "width": decoded.width,
        "height": decoded.height,
        "detections": prediction.detections,
        "timings_ms": {
            "queue": round(queue_ms, 1),
            "decode": round(decode_seconds * 1000, 1),
            "infer": round(prediction.infer_ms, 1),
            "draw": round(draw_seconds * 1000, 1),
            "total": round(queue_ms + (end - begin) * 1000, 1),
        },
    }
    if jpeg is None:
        result["image"] = None
    return result, jpeg
