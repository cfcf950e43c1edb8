"""Makes the images of a chaos run, each with the answer that it must get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from shared.job.record import DetectParameters
from shared.settings import Settings
from tests.support.images import SAMPLES, encoded, many_codes, noise, photograph, undecodable
from tests.support.poison import poison
from tests.support.stack import DEMO_MODEL


@dataclass(frozen=True)
class Case:
    """A job that must complete with these `detections`, or fail with this `error` code."""

    name: str
    image: bytes
    detections: list[dict[str, Any]] | None = None
    error: str = ""
    tile: int = 0
    """Asked for, if not 0: such a job is done in parts."""
    conf: float = 0.25


def healthy_cases(micro_batch_jobs: int) -> list[Case]:
    """Mixed sizes and formats. The expected answers are computed here, one after the other, with
    the networks of the service: those for batches differ (docs/decisions/0005)."""
    pictures = {
        path.name: Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))
    }
    images = {name: encoded(picture, "JPEG", quality=90) for name, picture in pictures.items()}
    mixed = pictures["mixed.jpg"]
    images |= {
        "tiny.png": encoded(mixed.resize((160, 120)), "PNG"),
        "half.webp": encoded(mixed.resize((mixed.width // 2, mixed.height // 2)), "WEBP"),
        "large.jpg": encoded(mixed.resize((4000, 3000)), "JPEG", quality=88),
        "bus.jpg": photograph(),
        "noise.png": encoded(noise(500, 400), "PNG"),
    }
    from worker.model.detector import Detector
    from worker.model.images import decode, side_needed
    from worker.model.runtimes import prepare

    settings = Settings(yolo_model=str(DEMO_MODEL), micro_batch_jobs=micro_batch_jobs)
    detector, parameters = Detector(settings, prepare(settings)), DetectParameters()
    side = side_needed(parameters, settings.annotated_max_side)

    def answer(image: bytes) -> list[dict[str, Any]]:
        decoded = decode(image, max_pixels=settings.max_image_pixels, min_side=side)
        return detector.predict(decoded, parameters).detections

    return [Case(name, image, answer(image)) for name, image in images.items()]


def tiled_case(micro_batch_jobs: int) -> Case:
    """A job of 25 passes in four parts. Its answer is computed here in one go."""
    from worker.model.detector import Detector
    from worker.model.images import decode
    from worker.model.runtimes import prepare

    settings = Settings(yolo_model=str(DEMO_MODEL), micro_batch_jobs=micro_batch_jobs)
    detector = Detector(settings, prepare(settings))
    parameters = DetectParameters(tile=640, conf=0.5)
    image = encoded(many_codes(6, 4)[0], "JPEG", quality=92)
    decoded = decode(image, max_pixels=settings.max_image_pixels)
    tiling = parameters.tiling(decoded.width, decoded.height, settings.max_tiles)
    assert tiling
    found = detector.find(decoded, tiling.passes(), parameters)
    detections = detector.merge(found, decoded, parameters, 0.0).detections
    return Case("tiles", image, detections, tile=640, conf=0.5)


def poison_case(kind: str) -> Case:
    if kind == "slow":
        return Case(kind, poison(kind), detections=[])
    codes = {"kill": "worker_lost", "hang": "timeout", "raise": "internal"}
    return Case(kind, poison(kind), error=codes[kind])


def broken_case(seed: int) -> Case:
    return Case("broken", undecodable(seed), error="image_undecodable")
