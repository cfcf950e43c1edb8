"""The real worker app, with a real model that some images can kill, hang or confuse.

    celery -A tests.chaos.app worker

tests/support/poison.py makes those images.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from shared.job.record import DetectParameters
from tests.support.poison import POISON, SLOW_SECONDS
from worker.app import app as app
from worker.model import detector
from worker.model.images import DecodedImage


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
    """Do to this process what the image says."""
    first = tuple(int(value) for value in image.pixels[0, 0])
    if first == POISON["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if first == POISON["hang"]:
        # As in a loop in native code, the signal of the soft limit is not heard.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        time.sleep(3600)
    if first == POISON["raise"]:
        raise RuntimeError("poison")
    if first == POISON["slow"]:
        time.sleep(SLOW_SECONDS)


detector.Detector = VulnerableDetector  # type: ignore[misc]
