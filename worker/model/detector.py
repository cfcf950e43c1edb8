"""Owns the YOLO instance of one process.

Ultralytics' guidance on threads: never share an instance; each thread or process makes its own
(https://docs.ultralytics.com/guides/yolo-thread-safe-inference/). A `Detector` is made in the pool
process, after the fork, and used by that process' only thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pi_heif

from shared.errors import InvalidTask, ModelUnavailable
from shared.job.record import DetectParameters
from shared.settings import Settings
from worker.model.drawing import draw, use_colors_that_show
from worker.model.images import DecodedImage, Pixels
from worker.model.openvino_network import compile_network, openvino_options
from worker.model.openvino_predictor import LETTERBOXED, OpenVINOPredictor, pixels_to_openvino
from worker.model.runtimes import ServedModel, export_metadata
from worker.model.torch_network import prepare_convolutions
from worker.model.warm_up import warm_up
from worker.model.weights import be_quiet_and_offline


@dataclass(frozen=True, slots=True)
class Prediction:
    """`detections` has Ultralytics' `summary()` shape, coordinates in pixels of the original image.
    `annotated`: H x W x 3 BGR or None. Times in milliseconds."""

    detections: list[dict[str, Any]]
    annotated: Pixels | None
    infer_ms: float
    draw_ms: float


class Detector:
    """One model on one device. Not to be shared between threads."""

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        *,
        process_index: int = 0,
        threads: int = 1,
    ) -> None:
        """Load and warm up. `process_index` picks the GPU when there are several.

        Raises `ModelUnavailable` with what to do about it.
        """
        self._settings = settings
        self.served = model
        be_quiet_and_offline()
        import torch

        use_colors_that_show()
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        pi_heif.options.DECODE_THREADS = threads
        self.device = pick_device(settings.yolo_device, process_index)
        self._openvino: OpenVINOPredictor | None = None
        self.can_batch = True
        try:
            if pixels_to_openvino(model):
                self._load_openvino(threads)
            else:
                self._load_ultralytics(threads)
            # Here, so that a process that replaces a dead one is warm as well.
            warm_up(self, settings)
        except Exception as error:
            raise ModelUnavailable(
                f"YOLO_MODEL={settings.yolo_model} does not load on {self.device}: "
                + str(error).strip().partition("\n")[0]
            ) from error

    @property
    def model_name(self) -> str:
        return Path(self._settings.yolo_model).name

    def _load_openvino(self, threads: int) -> None:
        self._openvino = OpenVINOPredictor(
            self.served,
            threads=threads,
            precision=self._settings.yolo_precision,
            batches=self._settings.micro_batch_jobs > 1,
        )
        self.names, self.task = self._openvino.names, self._openvino.task

    def _load_ultralytics(self, threads: int) -> None:
        from ultralytics import YOLO

        task = export_metadata(self.served.path).get("task")
        self._model = YOLO(self.served.path, task=task, verbose=False)
        self.names = dict(self._model.names)
        self.task = str(self._model.task)
        self._set_up_predictor()
        if self.served.runtime == "openvino":
            # Left to itself, OpenVINO takes all cores in each process.
            options = openvino_options(threads, self._settings.yolo_precision)
            backend = self._model.predictor.model.backend
            backend.ov_compiled_model = compile_network(self.served.path, options)
        network = self._model.predictor.model
        if network.format == "pt" and self.device == "cpu":
            prepare_convolutions(network.backend.model)
        # An export of a fixed size takes the pictures one by one. TensorRT is built for a greatest
        # batch, which is one.
        dynamic = network.format in ("onnx", "openvino") and getattr(network, "dynamic", False)
        self.can_batch = network.format == "pt" or bool(dynamic)

    def _set_up_predictor(self) -> None:
        """Predict once: Ultralytics makes its predictor, with the network in it, at the first."""
        self.predict(DecodedImage(np.zeros((480, 640, 3), np.uint8), 640, 480), DetectParameters())

    def predict(self, image: DecodedImage, parameters: DetectParameters) -> Prediction:
        """Detect, and draw if asked. Raises `InvalidTask` for a class the model does not have."""
        classes = self._known_classes(parameters)
        begin = time.perf_counter()
        result = self._infer(image.pixels, parameters, classes)
        return self.describe(result, image, parameters, time.perf_counter() - begin)

    def predict_batch(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[Prediction]:
        """As `predict` for each, in their order, with as few forward passes as give the same
        detections: only pictures that are as large as each other once they are letterboxed go
        together. (Ultralytics would pad them all to a square.) `infer_ms`: of the whole pass."""
        if len(images) < 2 or not self.can_batch:
            return [self.predict(image, parameters) for image in images]
        classes = self._known_classes(parameters)
        predictions: dict[int, Prediction] = {}
        for numbers, boxed in self._passes(images, parameters):
            pictures = [images[number].pixels for number in numbers]
            begin = time.perf_counter()
            if len(pictures) == 1:
                results = [self._infer(pictures[0], parameters, classes)]
            else:
                results = self._infer_together(pictures, boxed, parameters, classes)
            infer_seconds = time.perf_counter() - begin
            for number, result in zip(numbers, results, strict=True):
                predictions[number] = self.describe(
                    result, images[number], parameters, infer_seconds
                )
        return [predictions[number] for number in range(len(images))]

    def _known_classes(self, parameters: DetectParameters) -> list[int] | None:
        classes = list(parameters.classes) if parameters.classes is not None else None
        names = self.names
        unknown = [number for number in classes or () if number not in names]
        if unknown:
            raise InvalidTask(
                f"The model has no class {unknown[0]}; its classes are 0 to {len(names) - 1}."
            )
        return classes

    def describe(
        self, result: Any, image: DecodedImage, parameters: DetectParameters, infer_seconds: float
    ) -> Prediction:
        """What a job gets of an Ultralytics `Results`: rows, and the drawing if asked for."""
        begin = time.perf_counter()
        detections = [to_original(row, *image.scale) for row in result.summary()]
        predicted = time.perf_counter()
        annotated: Pixels | None = None
        if parameters.annotate:
            annotated = draw(result, image.pixels, self._settings.annotated_max_side)
        drawn = time.perf_counter()
        infer_ms = (infer_seconds + predicted - begin) * 1000
        return Prediction(detections, annotated, infer_ms, (drawn - predicted) * 1000)

    def _passes(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[tuple[list[int], list[Pixels]]]:
        """The pictures that go through the network together: their numbers, and what the network
        gets of them (empty where Ultralytics does that: a classifier crops all to one size)."""
        if self.task not in LETTERBOXED:
            return [(list(range(len(images))), [])]
        by_shape: dict[tuple[int, ...], tuple[list[int], list[Pixels]]] = {}
        for number, image in enumerate(images):
            boxed = self._letterbox(image.pixels, parameters)
            numbers, group = by_shape.setdefault(boxed.shape, ([], []))
            numbers.append(number)
            group.append(boxed)
        return list(by_shape.values())

    def _letterbox(self, pixels: Pixels, parameters: DetectParameters) -> Pixels:
        """Resized and padded as the network gets it, by Ultralytics."""
        from ultralytics.utils.checks import check_imgsz

        predictor = self._openvino.ultralytics if self._openvino else self._model.predictor
        predictor.imgsz = check_imgsz(parameters.imgsz, stride=predictor.model.stride, min_dim=2)
        (boxed,) = predictor.pre_transform([pixels])
        return np.asarray(boxed, np.uint8)

    def _infer_together(
        self,
        pictures: list[Pixels],
        boxed: list[Pixels],
        parameters: DetectParameters,
        classes: list[int] | None,
    ) -> list[Any]:
        """Ultralytics' `Results` for pictures of one pass."""
        if self._openvino is not None:
            return self._openvino(pictures, boxed, parameters, classes)
        predictor = self._model.predictor
        if boxed:
            predictor.pre_transform = lambda _: boxed  # in front of the class' own
        try:
            return self._through_ultralytics(pictures, parameters, classes)
        finally:
            vars(predictor).pop("pre_transform", None)

    def _infer(
        self, pixels: Pixels, parameters: DetectParameters, classes: list[int] | None
    ) -> Any:
        """Ultralytics' `Results` for one picture."""
        if self._openvino is None:
            return self._through_ultralytics([pixels], parameters, classes)[0]
        boxed = self._letterbox(pixels, parameters)
        return self._openvino([pixels], [boxed], parameters, classes)[0]

    def _through_ultralytics(
        self, pictures: list[Pixels], parameters: DetectParameters, classes: list[int] | None
    ) -> list[Any]:
        results: list[Any] = self._model.predict(
            pictures,
            conf=parameters.conf,
            iou=parameters.iou,
            imgsz=parameters.imgsz,
            max_det=parameters.max_det,
            classes=classes,
            device=self.device,
            verbose=False,
        )
        return results


def to_original(row: dict[str, Any], scale_x: float, scale_y: float) -> dict[str, Any]:
    """One `summary()` row with its coordinates in pixels of the original image."""
    if scale_x == 1 and scale_y == 1:
        return row

    def scaled(name: str, value: float) -> float:
        return round(value * (scale_x if name.startswith("x") else scale_y), 5)

    out = dict(row)
    if "box" in row:
        out["box"] = {name: scaled(name, value) for name, value in row["box"].items()}
    for part in ("segments", "keypoints"):
        if row.get(part):
            out[part] = {
                name: [scaled(name, value) for value in values] if name in ("x", "y") else values
                for name, values in row[part].items()
            }
    return out


def pick_device(wanted: str, process_index: int) -> str:
    """`auto` gives each pool process a GPU in turn, else the CPU; else what is said."""
    if wanted != "auto":
        return wanted
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{process_index % gpus}" if gpus else "cpu"
