"""Finds the weights file, checks its hash, and downloads published models by name.

python -m worker.model.weights yolov8n.pt     # downloads into the current folder
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from shared.errors import ModelUnavailable
from shared.settings import ModelSource


def be_quiet_and_offline() -> None:
    """Set up Ultralytics for a service: no network, no installs, no log output. Call before its
    import."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")


def find_weights(source: ModelSource) -> Path:
    """The path of the weights file. A worker never falls back to another model.

    Raises `ModelUnavailable` if the file is missing or its hash is not the expected one.
    """
    path = Path(source.weights)
    if not path.exists():
        raise ModelUnavailable(
            f"{source.weights} is not there and could not be fetched. Set YOLO_MODEL (or "
            "YOLO_MODELS) to the path of a weights file."
        )
    if source.sha256 and path.is_file():
        found = version_of(path)
        if found != source.sha256.lower():
            raise ModelUnavailable(
                f"{path} has SHA-256 {found}, not the one in YOLO_MODEL_SHA256; it is not loaded."
            )
    return path


def version_of(weights: Path) -> str:
    """The SHA-256 of a weights file; of a folder (an export): of its files, in the order of their
    names."""
    if weights.is_file():
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in sorted(path for path in weights.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(weights)} {version_of(path)}\n".encode())
    return digest.hexdigest()


def is_published_name(model: str) -> bool:
    """Whether `model` is a file name that Ultralytics may offer for download, not a path."""
    return Path(model).name == model and model.endswith(".pt")


def fetch(model: str, *, timeout_seconds: float) -> bool:
    """Let Ultralytics download a published model, unless the file exists.

    A process of its own does it, which is killed after `timeout_seconds`. Returns whether the file
    exists now.
    """
    if not Path(model).exists() and is_published_name(model):
        try:
            subprocess.run(
                [sys.executable, "-m", "worker.model.weights", model],
                timeout=timeout_seconds,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return Path(model).exists()


def main() -> int:
    from ultralytics.utils.downloads import attempt_download_asset

    # Into another folder first, so that nobody takes a partial download for the model.
    model = Path(sys.argv[1])
    folder = Path(".fetching")
    folder.mkdir(exist_ok=True)
    fetched = Path(attempt_download_asset(folder / model.name))
    if not fetched.exists():
        return 1
    fetched.replace(model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
