"""Owns the YOLO instance of one process. The only module of the service that imports ultralytics.

Ultralytics' guidance on threads: never share an instance; each thread or process makes its own
(https://docs.ultralytics.com/guides/yolo-thread-safe-inference/). A `Detector` is made in the pool
process, after the fork, and used by that process' only thread.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shared.errors import InvalidTask, ModelUnavailable
from shared.jobs import DetectParameters
from shared.settings import Settings
from worker.images import DecodedImage, Pixels, fit_within
from worker.openvino_network import OpenVINONetwork, compile_network, openvino_options
from worker.runtimes import ServedModel
from worker.weights import be_quiet_and_offline

WHITES_STAND_IN = (255, 112, 31)
"""RGB."""

LETTERBOXED = ("detect", "segment", "pose", "obb")
"""Tasks whose pictures Ultralytics resizes, pads and divides by 255, and no more."""

log = logging.getLogger(__name__)


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
        from ultralytics import YOLO
        from ultralytics.utils.plotting import colors

        # The third class' near-white lines vanish on paper and sky.
        colors.palette[2] = WHITES_STAND_IN

        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.device = pick_device(settings.yolo_device, process_index)
        self._network: OpenVINONetwork | None = None
        try:
            self._model = YOLO(model.path, task=exported_task(model.path), verbose=False)
            self._warm_up(threads)
            self.names: dict[int, str] = dict(self._model.names)
            self.task: str = str(self._model.task)
        except Exception as error:
            raise ModelUnavailable(
                f"YOLO_MODEL={settings.yolo_model} does not load on {self.device}: "
                + str(error).strip().partition("\n")[0]
            ) from error

    @property
    def model_name(self) -> str:
        return Path(self._settings.yolo_model).name

    def _warm_up(self, threads: int) -> None:
        """Predict, so that lazy imports, kernels and allocations do not hit the first job."""
        blank = DecodedImage(np.zeros((480, 640, 3), np.uint8), 640, 480)
        self.predict(blank, DetectParameters())
        if self.served.runtime == "openvino":
            backend = self._model.predictor.model.backend
            options = openvino_options(threads, self._settings.yolo_precision)
            if self._model.task in LETTERBOXED:
                # Ultralytics has compiled the network too, for all cores; one is enough.
                backend.ov_compiled_model = None
                self._network = OpenVINONetwork(self.served.path, options)
            else:
                backend.ov_compiled_model = compile_network(self.served.path, options)
            self.predict(blank, DetectParameters())

    def predict(self, image: DecodedImage, parameters: DetectParameters) -> Prediction:
        """Detect, and draw if asked. Raises `InvalidTask` for a class the model does not have."""
        classes = list(parameters.classes) if parameters.classes is not None else None
        names = self._model.names
        unknown = [number for number in classes or () if number not in names]
        if unknown:
            raise InvalidTask(
                f"The model has no class {unknown[0]}; its classes are 0 to {len(names) - 1}."
            )
        begin = time.perf_counter()
        result = self._infer(image.pixels, parameters, classes)
        detections = [to_original(row, *image.scale) for row in result.summary()]
        predicted = time.perf_counter()
        annotated: Pixels | None = None
        if parameters.annotate:
            annotated = self._draw(result, image.pixels)
        drawn = time.perf_counter()
        return Prediction(
            detections, annotated, (predicted - begin) * 1000, (drawn - predicted) * 1000
        )

    def _infer(
        self, pixels: Pixels, parameters: DetectParameters, classes: list[int] | None
    ) -> Any:
        """Ultralytics' `Results` for one picture."""
        if self._network is None:
            return self._model.predict(
                pixels,
                conf=parameters.conf,
                iou=parameters.iou,
                imgsz=parameters.imgsz,
                max_det=parameters.max_det,
                classes=classes,
                device=self.device,
                verbose=False,
            )[0]
        # What `predict` does with one picture, around our network: Ultralytics' letterbox before it
        # and Ultralytics' post-processing of the model's task behind it.
        import torch
        from ultralytics.utils.checks import check_imgsz

        predictor = self._model.predictor
        arguments = predictor.args
        arguments.conf, arguments.iou = parameters.conf, parameters.iou
        arguments.max_det, arguments.classes = parameters.max_det, classes
        predictor.imgsz = check_imgsz(parameters.imgsz, stride=predictor.model.stride, min_dim=2)
        predictor.batch = [""], [pixels], [""]  # paths, of which there are none
        with torch.inference_mode():
            (boxed,) = predictor.pre_transform([pixels])
            raw = [torch.from_numpy(output) for output in self._network(boxed)]
            # Only its shape is asked for.
            tensor = torch.empty((1, 3, *boxed.shape[:2]), device="meta")
            (result,) = predictor.postprocess(raw if raw[1:] else raw[0], tensor, [pixels])
        return result

    def _draw(self, result: Any, pixels: Pixels) -> Pixels:
        """Ultralytics' own drawing, on a picture that fits the size that is sent back."""
        canvas = fit_within(pixels, self._settings.annotated_max_side)
        if canvas is not pixels and result.masks is None and result.obb is None:
            height, width = canvas.shape[:2]
            factor_x, factor_y = width / pixels.shape[1], height / pixels.shape[0]
            result = scaled_result(result, canvas, factor_x, factor_y)
            return np.asarray(result.plot(), np.uint8)
        return fit_within(np.asarray(result.plot(), np.uint8), self._settings.annotated_max_side)


def scaled_result(result: Any, canvas: Pixels, factor_x: float, factor_y: float) -> Any:
    """A copy of a `Results` of boxes and keypoints on a resized picture."""
    copy = result.new()
    copy.orig_img = canvas
    copy.orig_shape = canvas.shape[:2]
    if result.boxes is not None:
        boxes = result.boxes.data.clone()
        boxes[:, [0, 2]] *= factor_x
        boxes[:, [1, 3]] *= factor_y
        copy.update(boxes=boxes)
    if result.keypoints is not None:
        points = result.keypoints.data.clone()
        points[..., 0] *= factor_x
        points[..., 1] *= factor_y
        from ultralytics.engine.results import Keypoints

        copy.keypoints = Keypoints(points, copy.orig_shape)
    if result.probs is not None:
        copy.update(probs=result.probs.data)
    return copy


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


def exported_task(path: Path) -> str | None:
    """The task in an export's metadata; None for a `.pt`, which knows its own."""
    for metadata in (path / "metadata.yaml", path.with_name("metadata.yaml")):
        if path.suffix != ".pt" and metadata.exists():
            import yaml

            return str(yaml.safe_load(metadata.read_text())["task"])
    return None


def pick_device(wanted: str, process_index: int) -> str:
    """`auto` gives each pool process a GPU in turn, else the CPU; else what is said."""
    if wanted != "auto":
        return wanted
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{process_index % gpus}" if gpus else "cpu"
