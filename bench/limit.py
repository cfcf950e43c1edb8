"""The limit of the machine: processes that only decode, predict, draw and encode in a loop.

python -m bench.limit --runtime openvino --seconds 10 IMAGE...
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

from shared.jobs import DetectParameters
from shared.settings import Settings


def loop(
    runtime: str, weights: str, threads: int, paths: list[str], seconds: float, out: object
) -> None:
    """As a script would: every picture decoded and drawn at its full size."""
    import cv2
    import numpy as np

    from worker.detector import Detector
    from worker.images import DecodedImage, encode_jpeg
    from worker.runtimes import prepare

    settings = Settings(yolo_model=weights, yolo_runtime=runtime, annotated_max_side=0)  # type: ignore[arg-type]
    detector, parameters = (
        Detector(settings, prepare(settings), threads=threads),
        DetectParameters(),
    )
    images = [Path(path).read_bytes() for path in paths]

    def one(data: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        image = DecodedImage(np.asarray(pixels, np.uint8), pixels.shape[1], pixels.shape[0])
        prediction = detector.predict(image, parameters)
        assert prediction.annotated is not None
        encode_jpeg(prediction.annotated, quality=85)

    for data in images:
        one(data)
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        one(images[done % len(images)])
        done += 1
    out.put(done / (time.perf_counter() - begin))  # type: ignore[attr-defined]


def measure(
    runtime: str, weights: str, paths: list[str], *, processes: int, threads: int, seconds: float
) -> float:
    """Images a second over all processes."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    running = [
        context.Process(target=loop, args=(runtime, weights, threads, paths, seconds, out))
        for _ in range(processes)
    ]
    for process in running:
        process.start()
    rate = sum(out.get(timeout=300) for _ in running)
    for process in running:
        process.join()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--weights", default="models/demo.pt")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("images", nargs="+")
    a = parser.parse_args()
    rate = measure(
        a.runtime, a.weights, a.images, processes=a.processes, threads=a.threads, seconds=a.seconds
    )
    print(f"{rate:.1f} images/s")


if __name__ == "__main__":
    main()
