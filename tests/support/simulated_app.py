"""The real worker app with a detector that only sleeps, to measure everything around the model.

    SIMULATED_MS=50 celery -A tests.support.simulated_app worker

Decoding and encoding are skipped. With SIMULATED_MS=0, the default, only the queue itself is left:
gateway, Redis, Celery, job records. With SIMULATED_LOAD_UNTIL=FILE a pool process has loaded its
models once that file exists; with SIMULATED_RUN_UNTIL=FILE a job has run once it does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.image_header import check_file
from shared.job.record import DetectParameters
from shared.settings import Settings
from shared.tiling import Tile
from worker import picture
from worker.app import app as app
from worker.model import detector
from worker.model.images import DecodedImage
from worker.model.merging import Found
from worker.model.runtimes import ServedModel
from worker.process import child, parent

LATENCY_SECONDS = float(os.environ.get("SIMULATED_MS", "0")) / 1000
_THING = {
    "name": "thing",
    "class": 0,
    "confidence": 0.5,
    "box": dict.fromkeys(("x1", "y1"), 1.0),
}
_BLANK = np.zeros((4, 4, 3), np.uint8)


def wait_for_file(variable: str) -> None:
    """Wait until the file exists that this environment variable names, if any."""
    while (path := os.environ.get(variable)) and not Path(path).exists():
        time.sleep(0.02)


class SimulatedDetector:
    """Sleeps instead of computing: as many as wanted fit on one core."""

    device = "none"
    names = {0: "thing"}  # noqa: RUF012
    task = "detect"
    can_batch = True
    can_tile = True

    def __init__(self, settings: Settings, model: ServedModel, **_: Any) -> None:
        self.served = model
        wait_for_file("SIMULATED_LOAD_UNTIL")

    def predict(self, image: DecodedImage, parameters: DetectParameters) -> detector.Prediction:
        wait_for_file("SIMULATED_RUN_UNTIL")
        if LATENCY_SECONDS:
            time.sleep(LATENCY_SECONDS)
        return detector.Prediction([_THING], None, LATENCY_SECONDS * 1000, 0.0)

    def predict_batch(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[detector.Prediction]:
        """One pass takes as long for many as for one."""
        return [self.predict(images[0], parameters)] * len(images)

    def find(
        self, image: DecodedImage, tiles: Sequence[Tile], parameters: DetectParameters
    ) -> list[Found]:
        """One thing in the picture as a whole, and it takes its time for each tile."""
        for _ in tiles:
            self.predict(image, parameters)
        place = np.array([[1, 1, 2, 2]], np.float32)
        return [
            Found(
                (tile.x, tile.y, tile.x + tile.width, tile.y + tile.height),
                place[: tile.width == image.width],
                np.array([0.5], np.float32)[: tile.width == image.width],
                np.array([0], np.int32)[: tile.width == image.width],
            )
            for tile in tiles
        ]

    def merge(
        self,
        found: Sequence[Found],
        image: DecodedImage,
        parameters: DetectParameters,
        infer_seconds: float,
    ) -> detector.Prediction:
        """Says as many things as passes have found any."""
        return detector.Prediction([_THING] * sum(map(len, found)), None, infer_seconds * 1000, 0.0)


def _no_decode(image: bytes, **_: Any) -> DecodedImage:
    header = check_file(image, max_pixels=2**62)
    return DecodedImage(_BLANK, *header.upright_size)


detector.Detector = SimulatedDetector  # type: ignore[assignment, misc]
picture.decode = _no_decode  # type: ignore[attr-defined]
# No weights, no PyTorch.
parent.fetch = lambda *_, **__: True  # type: ignore[attr-defined]


def _no_weights(_: Settings, name: str) -> ServedModel:
    return ServedModel(name, Path(), "simulated", Path(), version=name.encode().hex())


parent.prepare = _no_weights
child.check_version = lambda _: None  # type: ignore[attr-defined]
parent.preload = lambda _: None  # type: ignore[attr-defined]
