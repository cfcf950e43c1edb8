"""Runs the common kinds of pictures through a new detector, so that no first job is slow.

Some things are slow only once: the first input of a size (memory and machine code), the fonts and
modules of the first drawing, each decoder, arrays larger than any before. A process does them here
with the functions that jobs use, before it reports that it is ready.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from shared.job.record import DetectParameters
from shared.settings import Settings
from worker.model.images import DecodedImage, Pixels, decode, encode_jpeg, side_needed

if TYPE_CHECKING:
    from worker.model.detector import Detector

log = logging.getLogger("yolo_queue.worker")

FIRST = (640, 640)
"""Width and height of the largest input at the default `imgsz`; smaller ones reuse its memory."""
COMMON = ((640, 480), (480, 640), (640, 360), (360, 640))
"""What cameras send, letterboxed: the sizes of `openvino_network.FIXED_SIZES`."""
STRIPS = tuple(size for short in range(32, 225, 32) for size in ((640, short), (short, 640)))
"""Panoramas: preparing for their size takes longer than their prediction. All sizes would take 2 s,
and 5 MB each (decision 0007)."""
SMALL_IMGSZ = 320
SMALL = ((320, 320), (320, 213), (213, 320), (320, 240), (240, 320), (320, 180), (180, 320))
"""What cameras send, letterboxed to the smaller `imgsz` that is asked for most."""

PHOTOGRAPH = (4000, 3000)
"""12 megapixels: decoded at half size for a drawing of 1,920 pixels, at a quarter without one."""
BROAD = (5120, 160)
"""Decoded at an eighth of its size for an `imgsz` of 640."""
KEYPOINTS = 17
"""Those of a person in COCO. Other numbers of them are drawn by the same calls."""


def warm_up(detector: Detector, settings: Settings) -> None:
    """Run everything that is slow once.

    Raises what `Detector.predict` raises at the default size: such a model can serve nothing. Later
    steps affect speed alone, so their failures are only logged.
    """
    begin = time.perf_counter()
    _predict(detector, FIRST, DetectParameters(annotate=False))
    steps: tuple[Callable[[Detector, Settings], None], ...] = (
        _sizes,
        _small_inputs,
        _detections,
        _files,
        _batches,
    )
    for step in steps:
        try:
            step(detector, settings)
        except Exception as error:
            words = str(error).strip().partition("\n")[0]
            log.warning("first pictures may be slow: %s: %s", step.__name__.strip("_"), words)
    log.debug("process %d is warm after %.1f s", os.getpid(), time.perf_counter() - begin)


def _predict(detector: Detector, size: tuple[int, int], parameters: DetectParameters) -> None:
    width, height = size
    detector.predict(DecodedImage(_blank(size), width, height), parameters)


def _sizes(detector: Detector, settings: Settings) -> None:
    for size in (*COMMON, *STRIPS):
        _predict(detector, size, DetectParameters(annotate=False))


def _small_inputs(detector: Detector, settings: Settings) -> None:
    for size in SMALL:
        _predict(detector, size, DetectParameters(imgsz=SMALL_IMGSZ, annotate=False))


def _detections(detector: Detector, settings: Settings) -> None:
    """A blank picture has no detections: keep the least confident ones, then draw made-up ones."""
    # A small input has few candidates; sorting thousands would take long.
    width, height = small = SMALL[-2]
    pixels = _blank(small)
    everything = DetectParameters(imgsz=SMALL_IMGSZ, conf=0, max_det=5)
    detector.predict(DecodedImage(pixels, width, height), everything)
    for size in (*COMMON[:2], (1920, 1440), (2000, 1500)):
        draw_made_up(detector, size, settings)


def draw_made_up(detector: Detector, size: tuple[int, int], settings: Settings) -> None:
    """Draw and encode a made-up result of the model's task on a picture of `size`."""
    width, height = size
    pixels = _blank(size)
    result = made_up_result(detector.task, detector.names, pixels)
    image = DecodedImage(pixels, 2 * width, 2 * height)  # as if decoded at half size
    prediction = detector.describe(result, image, DetectParameters(), 0.0)
    if prediction.annotated is not None:
        encode_jpeg(prediction.annotated, quality=settings.annotated_jpeg_quality)


def made_up_result(task: str, names: dict[int, str], pixels: Pixels) -> Any:
    """An Ultralytics `Results` on `pixels` with two objects of the kind that the task finds."""
    import torch
    from ultralytics.engine.results import Results

    height, width = pixels.shape[:2]
    classes = (min(names), max(names))
    box = (0.2 * width, 0.2 * height, 0.7 * width, 0.7 * height)
    parts: dict[str, torch.Tensor] = {}
    if task == "classify":
        parts["probs"] = torch.softmax(torch.arange(len(names), dtype=torch.float32), 0)
    elif task == "obb":
        turned = (0.5 * width, 0.5 * height, 0.5 * width, 0.3 * height, 0.5)
        parts["obb"] = torch.tensor([[*turned, 0.9, number] for number in classes])
    else:
        parts["boxes"] = torch.tensor([[*box, 0.9, number] for number in classes])
    if task == "segment":
        masks = torch.zeros((2, height, width), dtype=torch.uint8)
        x1, y1, x2, y2 = map(int, box)
        masks[:, y1:y2, x1:x2] = 1
        parts["masks"] = masks
    if task == "pose":
        along = torch.linspace(0.2, 0.7, KEYPOINTS)
        points = torch.stack((along * width, along * height, torch.ones(KEYPOINTS)), 1)
        parts["keypoints"] = points.repeat(2, 1, 1)
    return Results(pixels, path="", names=names, **parts)


def _files(detector: Detector, settings: Settings) -> None:
    """Decode files of the usual kinds, at the sizes that requests need."""
    most = PHOTOGRAPH[0] * PHOTOGRAPH[1]
    with_picture, without = (
        side_needed(DetectParameters(annotate=annotate), settings.annotated_max_side)
        for annotate in (True, False)
    )
    pictures = list(encoded_pictures())
    for image in pictures:
        decode(image, max_pixels=most, min_side=without)
    # A photograph from file to drawing makes the largest arrays.
    photograph = decode(pictures[0], max_pixels=most, min_side=with_picture)
    detector.predict(photograph, DetectParameters())


def encoded_pictures() -> Iterator[bytes]:
    """Files of the usual kinds: JPEGs that are decoded at full size, a half, a quarter and an
    eighth, and one file for every other decoder."""
    for size in (PHOTOGRAPH, BROAD, (1920, 1080), COMMON[0]):
        yield _jpeg(size)
    pixels = _blank(COMMON[0])
    for pixels_of_kind in (pixels, cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA), pixels[:, :, 0]):
        yield _encoded(".png", pixels_of_kind)
    for suffix in (".webp", ".bmp", ".tiff"):
        yield _encoded(suffix, pixels)


def _batches(detector: Detector, settings: Settings) -> None:
    """Run the largest batch, and one of two, at the commonest size."""
    jobs = settings.micro_batch_jobs
    if jobs < 2 or not detector.can_batch:
        return
    width, height = COMMON[0]
    image = DecodedImage(_blank(COMMON[0]), width, height)
    for count in sorted({jobs, 2}, reverse=True):
        detector.predict_batch([image] * count, DetectParameters(annotate=False))


def _blank(size: tuple[int, int]) -> Pixels:
    width, height = size
    return np.full((height, width, 3), 114, np.uint8)


def _jpeg(size: tuple[int, int]) -> bytes:
    return encode_jpeg(_blank(size), quality=85)


def _encoded(suffix: str, pixels: Pixels) -> bytes:
    ok, data = cv2.imencode(suffix, pixels)
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a {suffix}")
    return data.tobytes()
