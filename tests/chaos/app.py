"""The real worker app, with a real model that some images can kill, hang or confuse.

An image says what it does to its process by the colour of its first pixel; see `POISON`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from shared.job.record import DetectParameters
from worker.app import app as app
from worker.model import detector
from worker.model.images import DecodedImage

SLOW_SECONDS = float(os.environ.get("SLOW_SECONDS", "17"))
"""Longer than a lease: a healthy job that must not be taken for a lost one."""

POISON = {"kill": (1, 2, 3), "hang": (3, 2, 1), "raise": (2, 3, 1), "slow": (3, 1, 2)}
"""What an image does, by its first pixel in BGR."""


class VulnerableDetector(detector.Detector):
    def predict(self, image: DecodedImage, parameters: DetectParameters) -> detector.Prediction:
        suffer(image)
        return super().predict(image, parameters)

    def predict_batch(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[detector.Prediction]:
        for image in images if len(images) > 1 else ():  # one goes through `predict`
            suffer(image)
        return super().predict_batch(images, parameters)


def suffer(image: DecodedImage) -> None:
    first = tuple(int(value) for value in image.pixels[0, 0])
    if first == POISON["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if first == POISON["hang"]:
        # Like a loop in native code: the soft limit's signal is not heard.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        time.sleep(3600)
    if first == POISON["raise"]:
        raise RuntimeError("poison")
    if first == POISON["slow"]:
        time.sleep(SLOW_SECONDS)


detector.Detector = VulnerableDetector  # type: ignore[misc]
