"""Measures the limit of the machine: processes that only decode, predict, draw and encode.

They do it in a loop, as a script would: with Ultralytics' own calls, every picture at full size.

    python -m bench.limit --runtime openvino --precision f32 --seconds 10 IMAGE...
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any


def loop(
    runtime: str,
    precision: str,
    weights: str,
    threads: int,
    paths: list[str],
    seconds: float,
    start: Any,
    out: Any,
) -> None:
    import cv2
    import numpy as np
    import torch
    from ultralytics import YOLO

    from shared.settings import Settings
    from worker.model.openvino_network import compile_network, openvino_options
    from worker.model.runtimes import export_metadata, prepare
    from worker.model.weights import be_quiet_and_offline

    be_quiet_and_offline()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    served = prepare(Settings(yolo_model=weights, yolo_runtime=runtime))
    model = YOLO(served.path, task=export_metadata(served.path).get("task"), verbose=False)

    def one(data: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        result = model.predict(pixels, device="cpu", verbose=False)[0]
        result.summary()
        cv2.imencode(".jpg", result.plot(), [cv2.IMWRITE_JPEG_QUALITY, 85])

    images = [Path(path).read_bytes() for path in paths]
    one(images[0])
    if runtime == "openvino":
        # Left to itself, OpenVINO takes all cores in each process.
        compiled = compile_network(served.path, openvino_options(threads, precision))
        model.predictor.model.backend.ov_compiled_model = compiled
    for data in images:
        one(data)
    start.wait()  # until every process has loaded
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        one(images[done % len(images)])
        done += 1
    out.put(done / (time.perf_counter() - begin))


def measure(
    runtime: str,
    weights: str,
    paths: list[str],
    *,
    precision: str = "f32",
    processes: int = 2,
    threads: int = 1,
    seconds: float,
) -> float:
    """Images a second over all processes."""
    context = multiprocessing.get_context("spawn")
    out, start = context.Queue(), context.Barrier(processes)
    arguments = (runtime, precision, weights, threads, paths, seconds, start, out)
    running = [context.Process(target=loop, args=arguments) for _ in range(processes)]
    for process in running:
        process.start()
    rate: float = sum(out.get(timeout=300) for _ in running)
    for process in running:
        process.join()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--weights", default="models/demo.pt")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("images", nargs="+")
    a = parser.parse_args()
    rate = measure(
        a.runtime,
        a.weights,
        a.images,
        precision=a.precision,
        processes=a.processes,
        threads=a.threads,
        seconds=a.seconds,
    )
    print(f"{rate:.1f} images/s")


if __name__ == "__main__":
    main()
