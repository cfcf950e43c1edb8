"""Runs a model with OpenVINO on the CPU: Ultralytics' letterbox, our network, Ultralytics'
post-processing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from shared.job.record import DetectParameters
from worker.model.backend import LETTERBOXED_TASKS, letterbox
from worker.model.images import Pixels
from worker.model.openvino_network import OpenVINONetwork, openvino_options
from worker.model.runtimes import ServedModel, export_metadata


def pixels_to_openvino(model: ServedModel) -> bool:
    """Whether an `OpenVINOBackend` serves the model: an export for OpenVINO of any task but
    classification, whose input is not letterboxed."""
    return model.runtime == "openvino" and export_metadata(model.path)["task"] in LETTERBOXED_TASKS


class OpenVINOBackend:
    """A `Backend` around an `OpenVINONetwork`."""

    max_batch: int | None = None

    def __init__(
        self, model: ServedModel, *, threads: int, precision: str, fixed_sizes: bool
    ) -> None:
        """`threads` and `precision`: see `openvino_options`. `fixed_sizes`: see
        `OpenVINONetwork`."""
        metadata = export_metadata(model.path)
        self.names: dict[int, str] = dict(metadata["names"])
        self.task: str = metadata["task"]
        self._network = OpenVINONetwork(
            model.path, openvino_options(threads, precision), fixed_sizes=fixed_sizes
        )
        self._predictor = predictor_without_network(model.path, metadata)

    def letterbox(self, pixels: Pixels, imgsz: int) -> Pixels:
        return letterbox(self._predictor, pixels, imgsz)

    def infer(
        self,
        pictures: list[Pixels],
        boxed: list[Pixels],
        parameters: DetectParameters,
        classes: list[int] | None,
    ) -> list[Any]:
        import torch

        boxed = boxed or [self.letterbox(pixels, parameters.imgsz) for pixels in pictures]
        predictor = self._predictor
        arguments = predictor.args
        arguments.conf, arguments.iou = parameters.conf, parameters.iou
        arguments.max_det, arguments.classes = parameters.max_det, classes
        no_paths = [""] * len(pictures)
        predictor.batch = no_paths, pictures, no_paths
        batch = np.stack(boxed) if boxed[1:] else boxed[0][None]
        with torch.inference_mode():
            raw = [torch.from_numpy(output) for output in self._network(batch)]
            # Post-processing asks for the input's shape alone.
            tensor = torch.empty((len(pictures), 3, *batch.shape[1:3]), device="meta")
            results: list[Any] = predictor.postprocess(raw if raw[1:] else raw[0], tensor, pictures)
        return results


def predictor_without_network(path: Path, metadata: dict[str, Any]) -> Any:
    """Ultralytics' predictor for the task of an export.

    It never runs a network: the export's `metadata` answers what it asks of one.
    """
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    TorchNMS.nms = staticmethod(torchvision_nms())
    model = YOLO(path, task=metadata["task"], verbose=False)
    predictor_class = model.task_map[metadata["task"]]["predictor"]
    # The arguments that `YOLO.predict` sets. Without `rect`, every picture is padded to a square.
    as_predict = {"mode": "predict", "rect": True, "batch": 1, "save": False, "verbose": False}
    predictor = predictor_class(overrides={"task": metadata["task"], **as_predict})
    facts = {"end2end": False, **metadata, "format": "openvino", "dynamic": True}
    predictor.model = SimpleNamespace(**facts)
    return predictor


def torchvision_nms() -> Any:
    """Load torchvision's non-maximum suppression without importing torchvision.

    The package imports half of PyTorch's compiler: 3 s and 100 MB for one operation. Ultralytics'
    own version in Python takes 60 times as long.
    """
    import torch

    package = importlib.util.find_spec("torchvision")
    folder = Path(str(package and package.origin)).parent
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
    return torch.ops.torchvision.nms
