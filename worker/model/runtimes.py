"""Owns what runs the network: PyTorch, or an export of the same weights that runs faster here.

Exports are made once, by a process of their own before any pool process starts, into a cache whose
folder names what they were made from: the weights' hash, the format and the versions involved.

    python -m worker.model.runtimes WEIGHTS FORMAT FOLDER     # what that process runs
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from shared.errors import ModelUnavailable
from shared.settings import Settings
from worker.model.weights import be_quiet_and_offline, find_weights

log = logging.getLogger("yolo_queue.worker")

EXPORT_SECONDS = 600
_PACKAGE = {"openvino": "openvino", "onnx": "onnxruntime", "tensorrt": "tensorrt"}
_FORMAT = {"openvino": "openvino", "onnx": "onnx", "tensorrt": "engine"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `Detector` loads, and what it was made from."""

    path: Path
    runtime: str
    weights: Path


def export_metadata(path: Path) -> dict[str, Any]:
    """What Ultralytics wrote beside an export (task, names, stride, ...); empty for a `.pt`."""
    for metadata in (path / "metadata.yaml", path.with_name("metadata.yaml")):
        if path.suffix != ".pt" and metadata.exists():
            return dict(yaml.safe_load(metadata.read_text()))
    return {}


def prepare(settings: Settings) -> ServedModel:
    """Choose the runtime and have its export ready. Slow the first time, then a look at a folder.

    Raises `ModelUnavailable` if the weights are not there, or if a runtime that was asked for by
    name cannot be had; `auto` falls back to PyTorch and says so.
    """
    weights = find_weights(settings)
    torch_model = ServedModel(weights, "torch", weights)
    if settings.yolo_runtime == "torch" or weights.suffix != ".pt":
        return torch_model
    runtime: str = settings.yolo_runtime
    if runtime == "auto":
        runtime = _best_runtime(settings)
        if runtime == "torch":
            return torch_model
    try:
        return ServedModel(_exported(settings, weights, runtime), runtime, weights)
    except ModelUnavailable as error:
        if settings.yolo_runtime != "auto":
            raise
        log.warning("serving with PyTorch: %s", error.message)
        return torch_model


def _best_runtime(settings: Settings) -> str:
    """TensorRT on an NVIDIA GPU and OpenVINO on a CPU, where they are installed."""
    on_gpu = settings.yolo_device.startswith("cuda")
    if settings.yolo_device == "auto":
        on_gpu = shutil.which("nvidia-smi") is not None
    wanted = "tensorrt" if on_gpu else "openvino"
    if on_gpu and settings.yolo_device == "auto" and not _installed("tensorrt"):
        return "torch"
    return wanted if _installed(_PACKAGE[wanted]) and settings.yolo_device != "mps" else "torch"


def _installed(package: str) -> str:
    """The version of an installed package, or an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _exported(settings: Settings, weights: Path, runtime: str) -> Path:
    package = _PACKAGE[runtime]
    if not _installed(package):
        raise ModelUnavailable(
            f"YOLO_RUNTIME={runtime} needs the package {package}: pip install {package}"
        )
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    maker = _installed("ultralytics-opencv-headless") or _installed("ultralytics")
    name = f"{weights.stem}-{digest}-{package}-{_installed(package)}-ultralytics-{maker}"
    cache = Path(settings.model_cache_dir).expanduser()
    folder = cache / name
    if not folder.exists():  # a cache that is complete may be read-only
        cache.mkdir(parents=True, exist_ok=True)
        # Many workers may start at once on one cache: one exports, the others wait for it.
        with FileLock(cache / f"{name}.lock", timeout=EXPORT_SECONDS):
            if not folder.exists():
                log.info("exporting %s to %s, once ...", weights.name, runtime)
                _export(weights, runtime, folder)
    return next(iter(sorted(folder.iterdir())))


def _export(weights: Path, runtime: str, folder: Path) -> None:
    """In a process of its own: this one is about to fork and must stay free of models."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = subprocess.run(
            [
                sys.executable,
                "-m",
                "worker.model.runtimes",
                str(weights),
                _FORMAT[runtime],
                scratch,
            ],
            capture_output=True,
            text=True,
            timeout=EXPORT_SECONDS,
            check=False,
        )
        result = Path(scratch) / "export"
        if out.returncode or not result.exists():
            words = (out.stderr.strip() or out.stdout.strip() or "no output").splitlines()[-1]
            raise ModelUnavailable(f"{weights.name} cannot be exported to {runtime}: {words}")
        # Whole or not at all: an export that was cut off is never taken for one.
        result.replace(folder)


def _main() -> int:
    """Export into FOLDER/export, dynamic in size: a rectangular input is a third less work."""
    weights, form, scratch = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    be_quiet_and_offline()
    from ultralytics import YOLO

    # Ultralytics writes beside the weights, which may be read-only or shared.
    copy = scratch / weights.name
    shutil.copyfile(weights, copy)
    made = Path(YOLO(copy, verbose=False).export(format=form, dynamic=True, verbose=False))
    target = scratch / "export"
    target.mkdir()
    made.replace(target / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
