"""Model files for tests: real networks of every Ultralytics task, with random weights."""

from __future__ import annotations

from pathlib import Path

from worker.model.weights import be_quiet_and_offline


def random_model(config: str, folder: Path) -> Path:
    """Save a network of one of Ultralytics' configurations, such as `yolov8n-seg.yaml`. Its weights
    are random, but the same each time. Returns the file."""
    be_quiet_and_offline()
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    weights = folder / "random.pt"
    YOLO(config).save(weights)
    return weights


def renamed_model(weights: Path, file: Path, names: dict[int, str] | None = None) -> Path:
    """Save the same network as another version, with class names of its own if any are given: then
    what it finds says which file made it."""
    be_quiet_and_offline()
    import torch

    checkpoint = torch.load(weights, weights_only=False)
    checkpoint["model"].names = names or checkpoint["model"].names
    checkpoint["file"] = file.name  # so that no two have the same bytes
    torch.save(checkpoint, file)
    return file
