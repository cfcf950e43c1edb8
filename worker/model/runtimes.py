"""Chooses what runs the network: PyTorch, or an export of the same weights that is faster here.

An export is made once, before any pool process starts, and kept in a cache. The name of its folder
says what it was made from: the weights' hash, the format, the versions and the arguments.
"""

from __future__ import annotations

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
from worker.model.weights import find_weights, version_of

log = logging.getLogger("yolo_queue.worker")

EXPORT_SECONDS = 600
_PACKAGE = {"openvino": "openvino", "onnx": "onnxruntime", "tensorrt": "tensorrt"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What `Detector` loads, and what it was made from. `version`: SHA-256 of the weights."""

    name: str
    path: Path
    runtime: str
    """torch (also for an export that is given as `YOLO_MODEL`), openvino, onnx or tensorrt."""
    weights: Path
    version: str


def export_metadata(path: Path) -> dict[str, Any]:
    """Read what Ultralytics wrote beside an export (task, names, stride, ...); `{}` for a `.pt`."""
    for metadata in (path / "metadata.yaml", path.with_name("metadata.yaml")):
        if path.suffix != ".pt" and metadata.exists():
            return dict(yaml.safe_load(metadata.read_text()))
    return {}


def prepare(settings: Settings, name: str = "") -> ServedModel:
    """Choose the runtime of a model and make its export, unless the cache has it. `name`: one of
    `settings.models`; the first unless given.

    Raises `ModelUnavailable` if the weights are missing, or if `YOLO_RUNTIME` names a runtime that
    cannot be used; `auto` falls back to PyTorch with a warning.
    """
    name = name or next(iter(settings.models))
    weights = find_weights(settings.models[name])
    version = version_of(weights)
    torch_model = ServedModel(name, weights, "torch", weights, version)
    runtime: str = settings.yolo_runtime
    if runtime == "auto":
        runtime = _best_runtime(settings)
    if runtime == "torch" or weights.suffix != ".pt":
        return torch_model
    try:
        path = _exported(settings, weights, version, runtime)
        return ServedModel(name, path, runtime, weights, version)
    except ModelUnavailable as error:
        if settings.yolo_runtime != "auto":
            raise
        log.warning("serving %s with PyTorch: %s", name, error.message)
        return torch_model


def check_version(model: ServedModel) -> None:
    """Raises `ModelUnavailable` if what is loaded is not what the model was prepared from. (An
    export is named by what it was made from.)"""
    if model.path == model.weights and version_of(model.weights) != model.version:
        raise ModelUnavailable(
            f"{model.weights} has changed since this worker started. To serve the new weights, "
            "start another worker; give each version a file of its own"
        )


def _best_runtime(settings: Settings) -> str:
    """TensorRT on an NVIDIA GPU and OpenVINO on a CPU, where they are installed."""
    on_gpu = settings.yolo_device.startswith("cuda")
    if settings.yolo_device == "auto":
        on_gpu = shutil.which("nvidia-smi") is not None
    wanted = "tensorrt" if on_gpu else "openvino"
    return wanted if installed(_PACKAGE[wanted]) and settings.yolo_device != "mps" else "torch"


def _exported(settings: Settings, weights: Path, version: str, runtime: str) -> Path:
    """The file or folder that Ultralytics made of `weights` for `runtime`."""
    arguments = export_arguments(runtime, settings)
    package = _PACKAGE[runtime]
    if not installed(package):
        raise ModelUnavailable(
            f"YOLO_RUNTIME={runtime} needs the package {package}: pip install {package}"
        )
    cache = Path(settings.model_cache_dir).expanduser()
    folder = cache / _folder_name(weights, version, package, arguments)
    if not folder.exists():  # a cache that is complete may be read-only
        cache.mkdir(parents=True, exist_ok=True)
        # Of workers that start at the same time on one cache, one exports and the others wait.
        with FileLock(cache / f"{folder.name}.lock", timeout=EXPORT_SECONDS):
            if not folder.exists():
                log.info("exporting %s to %s, once ...", weights.name, runtime)
                export(weights, folder, arguments, timeout=EXPORT_SECONDS)
    return next(iter(sorted(folder.iterdir())))


def _folder_name(weights: Path, version: str, package: str, arguments: dict[str, Any]) -> str:
    maker = installed("ultralytics-opencv-headless") or installed("ultralytics")
    parts = [weights.stem, version[:16], package, installed(package), "ultralytics", maker]
    # What all exports have in common is not named.
    special = arguments.keys() - {"format", "dynamic"}
    return "-".join([*parts, *(f"{name}-{arguments[name]}" for name in sorted(special))])
