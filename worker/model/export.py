"""Exports weights for another runtime with Ultralytics, in a process of its own.

    python -m worker.model.export WEIGHTS FOLDER ARGUMENTS     # what that process runs

ARGUMENTS are those of Ultralytics' `export`, in JSON.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from shared.errors import ModelUnavailable
from shared.settings import Settings
from worker.model.weights import be_quiet_and_offline

log = logging.getLogger("yolo_queue.worker")

FORMATS = {"openvino": "openvino", "onnx": "onnx", "tensorrt": "engine"}
"""Ultralytics' names of the formats, by `YOLO_RUNTIME`."""


def export_arguments(runtime: str, settings: Settings) -> dict[str, Any]:
    """The arguments of Ultralytics' `export` for a runtime.

    Networks take pictures of any size (`dynamic`): a rectangle is a third less work than a square.

    A TensorRT engine takes up to `MICRO_BATCH_JOBS` pictures a pass. It computes in half precision
    (`quantize=16`, formerly `half=True`) unless `YOLO_PRECISION=f32`. Its input is 32 bits either
    way; Ultralytics' `predict` reads that from the engine and feeds it accordingly.

    Developed without a GPU. Tested: Ultralytics' exporter accepts these arguments and puts the
    batch into an engine's metadata. Not tested: building an engine, its detections and its speed.
    """
    arguments: dict[str, Any] = {"format": FORMATS[runtime], "dynamic": True}
    if runtime == "tensorrt":
        arguments["batch"] = settings.micro_batch_jobs
        if settings.yolo_precision != "f32" and _can_halve():
            arguments["quantize"] = 16
    return arguments


def _can_halve() -> bool:
    """Whether the installed TensorRT can. From version 11 on, NVIDIA's ModelOpt must convert the
    network first."""
    tensorrt = installed("tensorrt")
    if int(tensorrt.partition(".")[0] or 0) < 11 or installed("nvidia-modelopt"):
        return True
    log.warning(
        "TensorRT %s needs nvidia-modelopt[onnx] for half precision; it will compute in 32 bits",
        tensorrt,
    )
    return False


def installed(package: str) -> str:
    """The version of a package, or an empty string if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def export(weights: Path, folder: Path, arguments: dict[str, Any], *, timeout: float) -> None:
    """Export `weights` to the new folder `folder`, within `timeout` seconds.

    A process of its own does it: this one is about to fork and must not hold a model. Raises
    `ModelUnavailable` if the export fails.
    """
    command = [sys.executable, "-m", "worker.model.export", str(weights)]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = subprocess.run(
            [*command, scratch, json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        result = Path(scratch) / "export"
        if out.returncode or not result.exists():
            words = (out.stderr.strip() or out.stdout.strip() or "no output").splitlines()[-1]
            form = f"format={arguments['format']}"
            raise ModelUnavailable(f"{weights.name} cannot be exported ({form}): {words}")
        # In one step, so that nobody takes an export that was cut off for a whole one.
        result.replace(folder)


def main() -> int:
    """Export WEIGHTS to FOLDER/export."""
    weights, scratch, arguments = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    be_quiet_and_offline()
    from ultralytics import YOLO

    # Ultralytics writes beside the weights, whose folder may be read-only or shared.
    copy = scratch / weights.name
    shutil.copyfile(weights, copy)
    made = Path(YOLO(copy, verbose=False).export(verbose=False, **arguments))
    target = scratch / "export"
    target.mkdir()
    made.replace(target / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
