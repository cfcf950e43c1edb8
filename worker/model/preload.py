"""Imports what a detector needs, but makes no model: in a worker's parent, before it forks."""

from __future__ import annotations

from worker.model.runtimes import ServedModel
from worker.model.weights import be_quiet_and_offline


def preload(model: ServedModel) -> None:
    """Import the heavy libraries, so that the processes share those pages and start faster."""
    be_quiet_and_offline()
    import torch  # noqa: F401
    import ultralytics.engine.results
    import ultralytics.models.yolo  # noqa: F401

    import worker.model.detector  # noqa: F401
    from worker.model.openvino_backend import pixels_to_openvino

    if not pixels_to_openvino(model):  # which does without it
        import torchvision  # noqa: F401
