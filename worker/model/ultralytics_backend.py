"""Runs a model through Ultralytics' `YOLO.predict`: PyTorch, ONNX, TensorRT, and classifiers in
OpenVINO.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shared.job.record import DetectParameters
from worker.model.backend import letterbox
from worker.model.images import Pixels
from worker.model.openvino_network import compile_network, openvino_options
from worker.model.runtimes import ServedModel
from worker.model.torch_convolutions import prepare_convolutions


class UltralyticsBackend:
    """A `Backend` around an Ultralytics `YOLO`, on the CPU or a GPU."""

    def __init__(self, model: ServedModel, *, device: str, threads: int, precision: str) -> None:
        """`device`: `cpu`, `cuda:0`, ... `threads` and `precision`: see `openvino_options`."""
        from ultralytics import YOLO

        self._device = device
        self._model = YOLO(model.path, verbose=False)
        self.names: dict[int, str] = dict(self._model.names)
        self.task = str(self._model.task)
        # Ultralytics makes its predictor, with the network in it, at the first prediction.
        self.infer([np.zeros((480, 640, 3), np.uint8)], [], DetectParameters(), None)
        network = self._model.predictor.model
        if model.runtime == "openvino":
            # By default OpenVINO takes all cores in each process.
            options = openvino_options(threads, precision)
            network.backend.ov_compiled_model = compile_network(model.path, options)
        if network.format == "pt" and device == "cpu":
            prepare_convolutions(network.backend.model)
        dynamic = bool(getattr(network, "dynamic", False))
        self.max_batch = largest_batch(network.format, dynamic=dynamic, batch=network.batch)

    def letterbox(self, pixels: Pixels, imgsz: int) -> Pixels:
        return letterbox(self._model.predictor, pixels, imgsz)

    def infer(
        self,
        pictures: list[Pixels],
        boxed: list[Pixels],
        parameters: DetectParameters,
        classes: list[int] | None,
    ) -> list[Any]:
        if boxed:  # an attribute of the instance hides the method of its class
            self._model.predictor.pre_transform = lambda _: boxed
        try:
            results: list[Any] = self._model.predict(
                pictures,
                conf=parameters.conf,
                iou=parameters.iou,
                imgsz=parameters.imgsz,
                max_det=parameters.max_det,
                classes=classes,
                device=self._device,
                verbose=False,
            )
        finally:
            if boxed:
                del self._model.predictor.pre_transform
        return results


def largest_batch(form: str, *, dynamic: bool, batch: int) -> int | None:
    """Most pictures that a network takes in one pass; None for any number.

    `form` is Ultralytics' name of its format; `dynamic` and `batch` are what it was exported with.
    A TensorRT engine refuses more pictures than it was built for. Ultralytics letterboxes pictures
    for an export of a fixed size differently, so those go one by one.
    """
    if form == "pt":
        return None
    if not dynamic:
        return 1
    return batch if form == "engine" else None
