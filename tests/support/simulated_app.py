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

from shared.job.record import DetectParameters
from shared.settings import Settings
from worker import attempt
from worker.app import app as app
from worker.model import detector
from worker.model.images import DecodedImage
from worker.model.runtimes import ServedModel
from worker.process import child, parent

LATENCY_SECONDS = float(os.environ.get("SIMULATED_MS", "0")) / 1000
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

    def __init__(self, settings: Settings, model: ServedModel, **_: Any) -> None:
        self.served = model
        wait_for_file("SIMULATED_LOAD_UNTIL")

    def predict(self, image: DecodedImage, parameters: DetectParameters) -> detector.Prediction:
        wait_for_file("SIMULATED_RUN_UNTIL")
        if LATENCY_SECONDS:
            time.sleep(LATENCY_SECONDS)
        found = {
            "name": "thing",
            "class": 0,
            "confidence": 0.5,
            "box": dict.fromkeys(("x1", "y1"), 1.0),
        }
        return detector.Prediction([found], None, LATENCY_SECONDS * 1000, 0.0)

    def predict_batch(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[detector.Prediction]:
        """One pass takes as long for many as for one."""
        return [self.predict(images[0], parameters)] * len(images)


def _no_decode(image: bytes, **_: Any) -> DecodedImage:
    return DecodedImage(_BLANK, 4, 4)


detector.Detector = SimulatedDetector  # type: ignore[assignment, misc]
attempt.decode = _no_decode  # type: ignore[attr-defined]
# No weights, no PyTorch.
parent.fetch = lambda *_, **__: True  # type: ignore[attr-defined]


def _no_weights(_: Settings, name: str) -> ServedModel:
    return ServedModel(name, Path(), "simulated", Path(), version=name.encode().hex())


parent.prepare = _no_weights
child.check_version = lambda _: None  # type: ignore[attr-defined]
parent.preload = lambda _: None  # type: ignore[attr-defined]
