"""The path of a picture through a pool process: fetch, decode, cut, and the result in the end."""

from __future__ import annotations

import time
from typing import Any

from shared import tracing
from shared.errors import ImageMissingInStore, InvalidTask, TooManyTiles
from shared.job.record import Attempt, DetectParameters
from shared.tiling import Tiling
from worker.attempt import Outcome
from worker.model.detector import Prediction
from worker.model.images import DecodedImage, decode, encode_jpeg, scale_needed, side_needed
from worker.process.child import PoolProcess


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


def tiles_field(tiling: Tiling | None) -> dict[str, Any]:
    """What a result says of its tiles; nothing if the job asked for none."""
    if tiling is None:
        return {}
    return {"tiles": {"count": tiling.count, "size": tiling.size, "overlap": tiling.overlap}}
