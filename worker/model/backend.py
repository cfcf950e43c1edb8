"""The interface between `Detector` and what runs the network, and the letterbox that both share.

Two backends implement it: `UltralyticsBackend` (`YOLO.predict`: PyTorch, ONNX, TensorRT) and
`OpenVINOBackend` (our own path into OpenVINO, faster on a CPU).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from shared.job.record import DetectParameters
from worker.model.images import Pixels

LETTERBOXED_TASKS = ("detect", "segment", "pose", "obb")
"""Tasks for which Ultralytics resizes and pads a picture and divides it by 255, nothing else. (For
a classifier it crops.)"""


class Backend(Protocol):
    """One loaded model. Not to be shared between threads."""

    names: dict[int, str]
    """Class names by class number."""
    task: str
    """Ultralytics' name of what the model does: detect, segment, pose, obb or classify."""
    max_batch: int | None
    """Most pictures of one `infer`; None for any number."""

    def letterbox(self, pixels: Pixels, imgsz: int) -> Pixels:
        """Resize and pad a picture as the network takes it: H x W x 3 uint8 BGR, both ways."""

    def infer(
        self,
        pictures: list[Pixels],
        boxed: list[Pixels],
        parameters: DetectParameters,
        classes: list[int] | None,
    ) -> list[Any]:
        """Run `pictures` through the network in one pass.

        `pictures`: H x W x 3 uint8 BGR. `boxed`: the same pictures after `letterbox`, all of one
        shape; empty to have them letterboxed here. `classes`: the class numbers to keep, None for
        all. Returns an Ultralytics `Results` for each picture.
        """


def letterbox(predictor: Any, pixels: Pixels, imgsz: int) -> Pixels:
    """`Backend.letterbox`, done by an Ultralytics predictor."""
    from ultralytics.utils.checks import check_imgsz

    predictor.imgsz = check_imgsz(imgsz, stride=predictor.model.stride, min_dim=2)
    (boxed,) = predictor.pre_transform([pixels])
    return np.asarray(boxed, np.uint8)
