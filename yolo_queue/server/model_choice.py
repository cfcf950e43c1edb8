"""Chooses the model that `make run` serves, and says why."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ModelUnavailable
from shared.settings import Settings
from worker.model.weights import fetch, find_weights

DOWNLOAD_SECONDS = 10
RETRY_SECONDS = 86_400
DEMO = Path(__file__).resolve().parents[2] / "models" / "demo.pt"


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`environment`: what tells gateway and workers. `words`: which models, and why."""

    environment: dict[str, str]
    words: str


def choose_model(settings: Settings, data_dir: Path) -> ModelChoice:
    """`YOLO_MODELS` or `YOLO_MODEL` if it is set, else yolov8n.pt if it is in this folder or can be
    downloaded quickly, else the demo model. Raises `ModelUnavailable` if one is not there."""
    if settings.yolo_models or "yolo_model" in settings.model_fields_set:
        for source in settings.models.values():
            fetch(source.weights, timeout_seconds=120)
            find_weights(source)
        if settings.yolo_models:
            return ModelChoice({}, f"{settings.yolo_models}, because YOLO_MODELS names them")
        return _one(settings.yolo_model, "YOLO_MODEL names it")
    wanted = settings.yolo_model
    if Path(wanted).exists():
        return _one(wanted, "it is in this folder")
    # A machine without internet access should not wait for it at every start.
    failed = data_dir / f"{wanted}.download-failed"
    if not failed.exists() or time.time() - failed.stat().st_mtime > RETRY_SECONDS:
        print(
            f"Looking for {wanted} on the internet ({DOWNLOAD_SECONDS} s at most) ...", flush=True
        )
        if fetch(wanted, timeout_seconds=DOWNLOAD_SECONDS):
            return _one(wanted, "Ultralytics published it and it could be downloaded")
        data_dir.mkdir(parents=True, exist_ok=True)
        failed.touch()
    if not DEMO.exists():
        raise ModelUnavailable(
            f"{wanted} cannot be downloaded and {DEMO} is missing: set YOLO_MODEL to a file."
        )
    return _one(
        str(DEMO),
        f"{wanted} is not here and could not be downloaded (set YOLO_MODEL, or delete {failed} to "
        "try again)",
    )


def _one(weights: str, reason: str) -> ModelChoice:
    path = str(Path(weights).resolve())
    return ModelChoice({"YOLO_MODEL": path}, f"{path}, because {reason}")
