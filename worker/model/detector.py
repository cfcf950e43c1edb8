"""Runs predictions with one YOLO model: from decoded pictures to detections and drawings.

Each pool process makes a `Detector` of its own after the fork, and its only thread uses it:
Ultralytics' models must not be shared between threads
(https://docs.ultralytics.com/guides/yolo-thread-safe-inference/).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import pi_heif

from shared.errors import InvalidTask, ModelUnavailable
from shared.job.record import DetectParameters
from shared.settings import Settings
from shared.tiling import Tile
from worker.model.backend import LETTERBOXED_TASKS, Backend
from worker.model.drawing import draw, replace_white
from worker.model.images import DecodedImage, Pixels
from worker.model.merging import Found, merged
from worker.model.openvino_backend import OpenVINOBackend, pixels_to_openvino
from worker.model.runtimes import ServedModel
from worker.model.tiled import find, results_of, rows_of
from worker.model.ultralytics_backend import UltralyticsBackend
from worker.model.warm_up import warm_up
from worker.model.weights import be_quiet_and_offline


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a job gets of one picture."""

    detections: list[dict[str, Any]]
    """Rows of Ultralytics' `Results.summary()`, in pixels of the original image."""
    annotated: Pixels | None
    """H x W x 3 uint8 BGR, if the job asked for a drawing."""
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
        """Load the model and warm it up. `process_index` picks the GPU if there are several.

        `threads`: cores that PyTorch, OpenVINO, OpenCV and the HEIC decoder may use each.
        Raises `ModelUnavailable`, which says what to do about it.
        """
        self._settings = settings
        self.served = model
        be_quiet_and_offline()
        import torch

        replace_white()
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        pi_heif.options.DECODE_THREADS = threads
        self.device = pick_device(settings.yolo_device, process_index)
        try:
            self._backend = self._load(threads)
            # Here, so that a process that replaces a dead one is warm as well.
            warm_up(self, settings)
        except Exception as error:
            raise ModelUnavailable(
                f"The model {model.name} ({model.weights}) does not load on {self.device}: "
                + str(error).strip().partition("\n")[0]
            ) from error

    def _load(self, threads: int) -> Backend:
        precision = self._settings.yolo_precision
        if pixels_to_openvino(self.served):
            alone = self._settings.micro_batch_jobs == 1
            return OpenVINOBackend(
                self.served, threads=threads, precision=precision, fixed_sizes=alone
            )
        return UltralyticsBackend(
            self.served, device=self.device, threads=threads, precision=precision
        )

    @property
    def names(self) -> dict[int, str]:
        """Class names by class number."""
        return self._backend.names

    @property
    def task(self) -> str:
        """detect, segment, pose, obb or classify."""
        return self._backend.task

    @property
    def can_batch(self) -> bool:
        """Whether several pictures can go through the network in one pass."""
        return self._backend.max_batch != 1

    @property
    def can_tile(self) -> bool:
        """Whether what the model finds in parts of a picture can be put together."""
        return self.task in LETTERBOXED_TASKS

    def predict(self, image: DecodedImage, parameters: DetectParameters) -> Prediction:
        """Detect, and draw if asked. Raises `InvalidTask` for a class the model does not have."""
        classes = self._known_classes(parameters)
        begin = time.perf_counter()
        (result,) = self._backend.infer([image.pixels], [], parameters, classes)
        return self.describe(result, image, parameters, time.perf_counter() - begin)

    def predict_batch(
        self, images: Sequence[DecodedImage], parameters: DetectParameters
    ) -> list[Prediction]:
        """Predict for each image, in order, in as few forward passes as possible.

        Each gets what `predict` would give it. So only pictures of one size after the letterbox
        share a pass: Ultralytics would pad a mixed batch to squares, and find other things in them.
        `infer_ms` is the time of the whole pass. Raises what `predict` raises.
        """
        if len(images) < 2 or not self.can_batch:
            return [self.predict(image, parameters) for image in images]
        classes = self._known_classes(parameters)
        predictions: dict[int, Prediction] = {}
        for numbers, boxed in self._passes(images, parameters):
            pictures = [images[number].pixels for number in numbers]
            begin = time.perf_counter()
            results = self._backend.infer(pictures, boxed, parameters, classes)
            infer_seconds = time.perf_counter() - begin
            for number, result in zip(numbers, results, strict=True):
                predictions[number] = self.describe(
                    result, images[number], parameters, infer_seconds
                )
        return [predictions[number] for number in range(len(images))]

    def find(
        self, image: DecodedImage, tiles: Sequence[Tile], parameters: DetectParameters
    ) -> list[Found]:
        """Detect in each of these tiles of a picture; only if it `can_tile`. Raises what `predict`
        raises."""
        return find(self._backend, image, tiles, parameters, self._known_classes(parameters))

    def merge(
        self,
        found: Sequence[Found],
        image: DecodedImage,
        parameters: DetectParameters,
        infer_seconds: float,
    ) -> Prediction:
        """Make one prediction of what was found in the tiles of a picture, and draw it if asked.

        `infer_seconds`: what finding it took.
        """
        begin = time.perf_counter()
        things = merged(found, iou=parameters.iou, max_det=parameters.max_det)
        result = results_of(things, image.pixels, self.names)
        detections = [to_original(row, *image.scale) for row in rows_of(things, result)]
        predicted = time.perf_counter()
        annotated: Pixels | None = None
        if parameters.annotate:
            max_side = self._settings.annotated_max_side
            annotated = draw(result, image.pixels, max_side, things.outlines)
        drawn = time.perf_counter()
        infer_ms = (infer_seconds + predicted - begin) * 1000
        return Prediction(detections, annotated, infer_ms, (drawn - predicted) * 1000)

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
        """Turn an Ultralytics `Results` into rows, and draw it on `image` if asked."""
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
    ) -> Iterator[tuple[list[int], list[Pixels]]]:
        """Split images into forward passes: the numbers of those that share one, and their
        letterboxed pixels (none for a classifier, which crops every picture to one size)."""
        groups: dict[tuple[int, ...], tuple[list[int], list[Pixels]]] = {}
        for number, image in enumerate(images):
            shape: tuple[int, ...] = ()
            boxed: list[Pixels] = []
            if self.task in LETTERBOXED_TASKS:
                boxed = [self._backend.letterbox(image.pixels, parameters.imgsz)]
                shape = boxed[0].shape
            numbers, group = groups.setdefault(shape, ([], []))
            numbers.append(number)
            group += boxed
        size = self._backend.max_batch or len(images)
        for numbers, group in groups.values():
            for begin in range(0, len(numbers), size):
                yield numbers[begin : begin + size], group[begin : begin + size]


def to_original(row: dict[str, Any], scale_x: float, scale_y: float) -> dict[str, Any]:
    """Scale a `summary()` row from decoded pixels to pixels of the original image."""
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
    """Resolve `auto`: pool processes take the GPUs in turn, or the CPU if there is none."""
    if wanted != "auto":
        return wanted
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{process_index % gpus}" if gpus else "cpu"
