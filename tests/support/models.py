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


def renamed_model(weights: Path, names: dict[int, str], file: Path) -> Path:
    """Save the same network with other class names. What it finds says which file made it."""
    be_quiet_and_offline()
    import torch

    checkpoint = torch.load(weights, weights_only=False)
    checkpoint["model"].names = names
    torch.save(checkpoint, file)
    return file
