"""Owns a model in OpenVINO: our network between Ultralytics' letterbox and post-processing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from shared.job.record import DetectParameters
from worker.model.images import Pixels
from worker.model.openvino_network import OpenVINONetwork, openvino_options
from worker.model.runtimes import ServedModel, export_metadata

LETTERBOXED = ("detect", "segment", "pose", "obb")
"""Tasks whose pictures Ultralytics resizes, pads and divides by 255, and no more."""


def pixels_to_openvino(model: ServedModel) -> bool:
    """Whether the model is served by an `OpenVINOPredictor`."""
    return model.runtime == "openvino" and export_metadata(model.path)["task"] in LETTERBOXED


class OpenVINOPredictor:
    """One model on the CPU. Not to be shared between threads."""

    def __init__(
        self, model: ServedModel, *, threads: int, precision: str, batches: bool = False
    ) -> None:
        """`batches`: whether several pictures may come at once."""
        metadata = export_metadata(model.path)
        self.names: dict[int, str] = dict(metadata["names"])
        self.task: str = metadata["task"]
        self._network = OpenVINONetwork(
            model.path, openvino_options(threads, precision), own_networks=not batches
        )
        self.ultralytics = predictor_around(model.path, metadata)

    def __call__(
        self,
        pictures: list[Pixels],
        boxed: list[Pixels],
        parameters: DetectParameters,
        classes: list[int] | None,
    ) -> list[Any]:
        """Ultralytics' `Results` for pictures that are as large as each other once they are
        letterboxed (`boxed`), as its own `predict` has them."""
        import torch

        predictor = self.ultralytics
        arguments = predictor.args
        arguments.conf, arguments.iou = parameters.conf, parameters.iou
        arguments.max_det, arguments.classes = parameters.max_det, classes
        nameless = [""] * len(pictures)
        predictor.batch = nameless, pictures, nameless  # paths, of which there are none
        batch = np.stack(boxed) if boxed[1:] else boxed[0][None]
        with torch.inference_mode():
            raw = [torch.from_numpy(output) for output in self._network(batch)]
            # Only its shape is asked for.
            tensor = torch.empty((len(pictures), 3, *batch.shape[1:3]), device="meta")
            results: list[Any] = predictor.postprocess(raw if raw[1:] else raw[0], tensor, pictures)
        return results


def predictor_around(path: Path, metadata: dict[str, Any]) -> Any:
    """Ultralytics' predictor of a model's task, without a network of its own: what it asks of one
    is said by the export's metadata."""
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    TorchNMS.nms = staticmethod(torchvision_nms())
    predictor_class = YOLO(path, task=metadata["task"], verbose=False)._smart_load("predictor")
    # As `YOLO.predict` has them: above all `rect`, without which every picture is made square.
    as_predict = {"mode": "predict", "rect": True, "batch": 1, "save": False, "verbose": False}
    predictor = predictor_class(overrides={"task": metadata["task"], **as_predict})
    facts = {"end2end": False, **metadata, "format": "openvino", "dynamic": True}
    predictor.model = SimpleNamespace(**facts)
    return predictor


def torchvision_nms() -> Any:
    """torchvision's non-maximum suppression without torchvision: the package imports half of
    PyTorch's compiler, 3 s and 100 MB, for one operation. (Ultralytics' own, in Python, takes 60
    times as long.)"""
    import torch

    package = importlib.util.find_spec("torchvision")
    folder = Path(str(package and package.origin)).parent
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
    return torch.ops.torchvision.nms
