"""The images of a chaos run, each with the answer it must get."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from shared.job.record import DetectParameters
from shared.settings import Settings
from tests.chaos.app import POISON
from tests.support.images import SAMPLES, encoded, noise, photograph
from tests.support.stack import DEMO_MODEL


@dataclass(frozen=True)
class Case:
    """`detections` of a job that must complete, or the `error` code of one that must fail."""

    name: str
    image: bytes
    detections: list[dict[str, Any]] | None = None
    error: str = ""


def healthy_cases() -> list[Case]:
    """Mixed sizes and formats; the answers come from one process that does one after the other."""
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

    settings = Settings(yolo_model=str(DEMO_MODEL))
    detector, parameters = Detector(settings, prepare(settings)), DetectParameters()
    side = side_needed(parameters, settings.annotated_max_side)

    def answer(image: bytes) -> list[dict[str, Any]]:
        decoded = decode(image, max_pixels=settings.max_image_pixels, min_side=side)
        return detector.predict(decoded, parameters).detections

    return [Case(name, image, answer(image)) for name, image in images.items()]


def poison_case(kind: str) -> Case:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:] = POISON[kind][::-1]
    image = encoded(Image.fromarray(pixels), "PNG")
    if kind == "slow":
        return Case("slow", image, [])
    return Case(
        kind, image, error={"kill": "worker_lost", "hang": "timeout", "raise": "internal"}[kind]
    )


def broken_case(seed: int) -> Case:
    """A sound header over rubbish."""
    data = bytearray(encoded(noise(80, 60, seed=seed), "PNG"))
    data[60:-60] = random.Random(seed).randbytes(len(data) - 120)
    return Case("broken", bytes(data), error="image_undecodable")
