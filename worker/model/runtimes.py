"""Chooses what runs the network: PyTorch, or an export of the same weights that is faster here.

An export is made once, before any pool process starts, and kept in a cache. The name of its folder
says what it was made from: the weights' hash, the format, the versions and the arguments.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from shared.errors import ModelUnavailable
from shared.settings import Settings
from worker.model.export import export, export_arguments, installed
from worker.model.weights import find_weights

log = logging.getLogger("yolo_queue.worker")

EXPORT_SECONDS = 600
_PACKAGE = {"openvino": "openvino", "onnx": "onnxruntime", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `Detector` loads, and what it was made from."""

    path: Path
    runtime: str
    """torch (also for an export that is given as `YOLO_MODEL`), openvino, onnx or tensorrt."""
    weights: Path


def export_metadata(path: Path) -> dict[str, Any]:
    """Read what Ultralytics wrote beside an export (task, names, stride, ...); `{}` for a `.pt`."""
    for metadata in (path / "metadata.yaml", path.with_name("metadata.yaml")):
        if path.suffix != ".pt" and metadata.exists():
            return dict(yaml.safe_load(metadata.read_text()))
    return {}


def prepare(settings: Settings) -> ServedModel:
    """Choose the runtime and make its export, unless the cache has it.

    Raises `ModelUnavailable` if the weights are missing, or if `YOLO_RUNTIME` names a runtime that
    cannot be used; `auto` falls back to PyTorch with a warning.
    """
    weights = find_weights(settings)
    torch_model = ServedModel(weights, "torch", weights)
    runtime: str = settings.yolo_runtime
    if runtime == "auto":
        runtime = _best_runtime(settings)
    if runtime == "torch" or weights.suffix != ".pt":
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
    return wanted if installed(_PACKAGE[wanted]) and settings.yolo_device != "mps" else "torch"


def _exported(settings: Settings, weights: Path, runtime: str) -> Path:
    """The file or folder that Ultralytics made of `weights` for `runtime`."""
    arguments = export_arguments(runtime, settings)
    package = _PACKAGE[runtime]
    if not installed(package):
        raise ModelUnavailable(
            f"YOLO_RUNTIME={runtime} needs the package {package}: pip install {package}"
        )
    cache = Path(settings.model_cache_dir).expanduser()
    folder = cache / _folder_name(weights, package, arguments)
    if not folder.exists():  # a cache that is complete may be read-only
        cache.mkdir(parents=True, exist_ok=True)
        # Of workers that start at the same time on one cache, one exports and the others wait.
        with FileLock(cache / f"{folder.name}.lock", timeout=EXPORT_SECONDS):
            if not folder.exists():
                log.info("exporting %s to %s, once ...", weights.name, runtime)
                export(weights, folder, arguments, timeout=EXPORT_SECONDS)
    return next(iter(sorted(folder.iterdir())))


def _folder_name(weights: Path, package: str, arguments: dict[str, Any]) -> str:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    maker = installed("ultralytics-opencv-headless") or installed("ultralytics")
    parts = [weights.stem, digest, package, installed(package), "ultralytics", maker]
    # What all exports have in common is not named.
    special = arguments.keys() - {"format", "dynamic"}
    return "-".join([*parts, *(f"{name}-{arguments[name]}" for name in sorted(special))])
