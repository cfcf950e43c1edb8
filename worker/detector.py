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
from worker.runtimes import ServedModel
from worker.weights import be_quiet_and_offline

WHITES_STAND_IN = (255, 112, 31)
"""RGB."""

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
            tune_openvino(self._model.predictor.model.backend, self.served.path, threads)
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
        result = self._model.predict(
            image.pixels,
            conf=parameters.conf,
            iou=parameters.iou,
            imgsz=parameters.imgsz,
            max_det=parameters.max_det,
            classes=classes,
            device=self.device,
            verbose=False,
        )[0]
        detections = [to_original(row, *image.scale) for row in result.summary()]
        predicted = time.perf_counter()
        annotated: Pixels | None = None
        if parameters.annotate:
            annotated = self._draw(result, image.pixels)
        drawn = time.perf_counter()
        return Prediction(
            detections, annotated, (predicted - begin) * 1000, (drawn - predicted) * 1000
        )

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


def tune_openvino(backend: Any, path: Path, threads: int) -> None:
    """Compile again with this process' share of the cores and in 32 bits.

    Left alone, OpenVINO takes all cores in each process, and bfloat16 where the CPU has it, which
    moves confidences by up to 0.02 (docs/performance.md has the figures).
    """
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": openvino.Type.f32,
        "ENABLE_CPU_PINNING": False,
    }
    core = openvino.Core()
    backend.ov_compiled_model = core.compile_model(next(path.glob("*.xml")), "CPU", options)


def pick_device(wanted: str, process_index: int) -> str:
    """`auto` gives each pool process a GPU in turn, else the CPU; else what is said."""
    if wanted != "auto":
        return wanted
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{process_index % gpus}" if gpus else "cpu"
