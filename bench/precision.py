"""Measures what fewer bits gain and cost: time and mAP of each runtime and precision.

    python models/synthesize.py --out codes/heldout --count 1000 --seed 7 --symbols heldout
    python -m bench.precision --data codes/heldout

8 bits need the package nncf, which the project does not install; without it they are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (1, 3, 640, 480)
THREADS = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="models/demo.pt")
    parser.add_argument("--data", type=Path, help="folder that synthesize.py drew, for the mAP")
    arguments = parser.parse_args()
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(THREADS)
    print("| runtime | ms | mAP50 | mAP50-95 |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(shutil.copy(arguments.weights, scratch))
        names = YOLO(weights).names
        data = None
        if arguments.data:
            data = data_file(arguments.data.resolve(), Path(scratch), names)
        rows = [("torch, 32 bits", str(weights), "")]
        exported = export(weights, None)
        rows += [("OpenVINO, 32 bits", exported, "f32"), ("OpenVINO, bfloat16", exported, "bf16")]
        if data and importlib.util.find_spec("nncf"):
            rows.append(("OpenVINO, 8 bits", export(weights, data), "f32"))
        for name, path, precision in rows:
            with openvino_precision(precision):
                maps = mean_precision(path, data) if data else ("-", "-")
                print(f"| {name} | {milliseconds(path, precision):.1f} | {maps[0]} | {maps[1]} |")


def data_file(root: Path, scratch: Path, names: dict[int, str]) -> Path:
    lines = "\n".join(f"  {number}: {name}" for number, name in names.items())
    path = scratch / "heldout.yaml"
    path.write_text(f"path: {root}\ntrain: images\nval: images\nnames:\n{lines}\n")
    return path


def export(weights: Path, calibration: Path | None) -> str:
    """Export with dynamic size, and in 8 bits if there is data to calibrate with."""
    from ultralytics import YOLO

    options: dict[str, Any] = {"format": "openvino", "dynamic": True, "verbose": False}
    if calibration:
        options |= {"int8": True, "data": str(calibration), "fraction": 0.3}
    return str(YOLO(weights).export(**options))


@contextmanager
def openvino_precision(precision: str) -> Iterator[None]:
    """Every network compiled within this context gets this precision, also by Ultralytics."""
    import openvino

    compile_model = openvino.Core.compile_model
    if precision:
        kind = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}[precision]

        def compile_so(self: Any, model: Any, device_name: str = "CPU", config: Any = None) -> Any:
            options = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": kind}
            return compile_model(self, model, device_name, {**(config or {}), **options})

        openvino.Core.compile_model = compile_so
    try:
        yield
    finally:
        openvino.Core.compile_model = compile_model


def mean_precision(path: str, data: Path | None) -> tuple[str, str]:
    from ultralytics import YOLO

    metrics = YOLO(path, task="detect").val(
        data=str(data), imgsz=640, device="cpu", workers=0, plots=False, verbose=False, batch=1
    )
    return f"{metrics.box.map50:.4f}", f"{metrics.box.map:.4f}"


def milliseconds(path: str, precision: str, repeats: int = 40) -> float:
    """CPU milliseconds of one pass of the network alone, one thread: the median."""
    pixels = np.random.default_rng(0).random(SHAPE, np.float32)
    if precision:
        import openvino

        xml = next(Path(path).glob("*.xml"))
        compiled = openvino.Core().compile_model(str(xml), "CPU", {})
        request = compiled.create_infer_request()

        def run() -> None:
            request.infer([pixels])
    else:
        import torch
        from ultralytics import YOLO

        model = YOLO(path).model.fuse(verbose=False).eval()
        tensor = torch.from_numpy(pixels)

        def run() -> None:
            with torch.inference_mode():
                model(tensor)

    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append((time.process_time() - begin) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    main()
