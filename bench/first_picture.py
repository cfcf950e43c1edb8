"""Measures the first picture of each size against later ones, in processes that are just ready.

python -m bench.first_picture --weights yolov8n.pt

Alone: each size has a process of its own, forked as a worker forks it, which decodes, predicts,
draws and encodes. In the service: from the upload to the result, with one pool process that is
killed after each size, so that the next size meets a new one. Ready: how long `make run` takes to
be ready, without and with an export of the model.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from bench.report import save, spread
from shared.job.record import DetectParameters
from shared.settings import Settings
from tests.support.images import encoded, photograph
from tests.support.processes import mapped_mib, pool_pids
from tests.support.stack import ROOT, Stack, free_port, wait_until

RUNTIMES = {"openvino": "openvino", "torch": "torch", "onnx": "onnxruntime"}
"""Runtime, and the package that it needs."""
LATER = 8
STARTS = 3


@dataclass(frozen=True, slots=True)
class Case:
    width: int
    height: int
    imgsz: int = 640
    annotate: bool = True

    @property
    def name(self) -> str:
        words = [f"{self.width} x {self.height}"]
        if self.imgsz != 640:
            words.append(f"imgsz {self.imgsz}")
        if not self.annotate:
            words.append("no picture")
        return ", ".join(words)

    def jpeg(self) -> bytes:
        source = Image.open(io.BytesIO(photograph())).convert("RGB")
        return encoded(source.resize((self.width, self.height)), "JPEG", quality=88)

    def parameters(self) -> DetectParameters:
        return DetectParameters(imgsz=self.imgsz, annotate=self.annotate)


CASES = (
    *(Case(640, 480), Case(480, 640), Case(1280, 720), Case(720, 1280)),  # have their own networks
    *(Case(800, 800), Case(1500, 1000), Case(2000, 500), Case(2000, 150)),
    *(Case(4000, 3000), Case(4000, 3000, annotate=False), Case(4243, 2828)),
    *(Case(640, 480, imgsz=320), Case(1500, 1000, imgsz=320), Case(1280, 720, imgsz=1280)),
)
IN_SERVICE = tuple(case for case in CASES if case.annotate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--runtime", help="measure one runtime alone, print JSON (for itself)")
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve())
    if arguments.runtime:
        print(json.dumps(alone(weights, arguments.runtime, arguments.repeats)))
        return
    figures: dict[str, Any] = {}
    lines: list[str] = []
    for runtime, package in RUNTIMES.items():
        if importlib.util.find_spec(package) is None:
            lines += [f"{runtime}: not measured, {package} is not installed.", ""]
            continue
        figures[runtime] = measured = {
            "alone": in_own_interpreter(weights, runtime, arguments.repeats),
            "service": in_service(weights, runtime),
        }
        lines += [*table(runtime, measured), ""]
    figures["ready_seconds"] = ready = ready_seconds(weights)
    lines += [
        f"`make run` to ready, {name} cache: {spread(times)} s" for name, times in ready.items()
    ]
    save("first_picture", figures, lines)


def table(runtime: str, measured: dict[str, Any]) -> list[str]:
    lines = [
        f"| {runtime} | first, ms | later | ratio | in the service, first | later | ratio |",
        "|" + " --- |" * 7,
    ]
    for case in CASES:
        cells = []
        for row in (measured["alone"]["cases"][case.name], measured["service"].get(case.name)):
            cells += ["", "", ""] if row is None else ratio_cells(row)
        lines.append(" | ".join([f"| {case.name}", *cells]) + " |")
    loaded, mib = measured["alone"]["load_seconds"], measured["alone"]["resident_mib"]
    lines += [
        "",
        f"{runtime}: a process loads in {spread(loaded, 2)} s of CPU; {spread(mib, 0)} MiB.",
    ]
    return lines


def ratio_cells(rows: list[dict[str, float]]) -> list[str]:
    """Medians of a case's repeats, and the ratio with its smallest and largest."""
    firsts, laters = ([row[key] for row in rows] for key in ("first", "later"))
    ratios = [row["first"] / row["later"] for row in rows]
    middle = spread(ratios, 2) if len(ratios) > 1 else f"{ratios[0]:.2f}"
    return [f"{statistics.median(firsts):.0f}", f"{statistics.median(laters):.0f}", middle]


def in_own_interpreter(weights: str, runtime: str, repeats: int) -> dict[str, Any]:
    """`alone` in a new interpreter, since what a worker's parent loads depends on the runtime."""
    command = [sys.executable, "-m", "bench.first_picture", "--weights", weights]
    command += ["--runtime", runtime, "--repeats", str(repeats)]
    out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return result


def alone(weights: str, runtime: str, repeats: int) -> dict[str, Any]:
    from worker.process.parent import prepare_parent

    settings = Settings(yolo_model=weights, yolo_runtime=runtime)
    prepare_parent(settings, "bench")
    gc.collect()
    gc.freeze()
    context = multiprocessing.get_context("fork")
    rows: dict[str, list[dict[str, float]]] = {case.name: [] for case in CASES}
    for _ in range(repeats):
        for case in CASES:
            parent, child = context.Pipe()
            process = context.Process(target=measure, args=(settings, case, case.jpeg(), child))
            process.start()
            child.close()
            rows[case.name].append(parent.recv())
            process.join()
    everything = [row for case_rows in rows.values() for row in case_rows]
    return {
        "cases": rows,
        "load_seconds": [row["load_seconds"] for row in everything],
        "resident_mib": [row["resident_mib"] for row in everything],
    }


def measure(settings: Settings, case: Case, jpeg: bytes, answer: Any) -> None:
    """Load as a pool process does, then time the pictures. Runs in a process of its own."""
    from worker.model.detector import Detector
    from worker.model.images import decode, encode_jpeg, side_needed
    from worker.process.parent import parent

    parameters = case.parameters()
    side = side_needed(parameters, settings.annotated_max_side)
    begin = time.perf_counter()
    detector = Detector(settings, next(iter(parent().models.values())), threads=1)
    row = {
        "load_seconds": time.perf_counter() - begin,
        "resident_mib": mapped_mib(os.getpid())["rss"],
    }
    times = []
    for _ in range(1 + LATER):
        begin = time.perf_counter()
        image = decode(jpeg, max_pixels=settings.max_image_pixels, min_side=side)
        annotated = detector.predict(image, parameters).annotated
        if annotated is not None:
            encode_jpeg(annotated, quality=settings.annotated_jpeg_quality)
        times.append((time.perf_counter() - begin) * 1000)
    answer.send({**row, "first": times[0], "later": statistics.median(times[1:])})


def in_service(weights: str, runtime: str) -> dict[str, list[dict[str, float]]]:
    environment = {"YOLO_MODEL": weights, "YOLO_RUNTIME": runtime, "WORKER_CONCURRENCY": "1"}
    rows = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), **environment) as stack,
        httpx.Client(base_url=stack.url, timeout=60) as client,
    ):
        stack.start()
        (worker,) = stack.workers
        for case in IN_SERVICE:
            jpeg = case.jpeg()
            first, *later = (job_ms(client, case, jpeg) for _ in range(1 + LATER))
            rows[case.name] = [{"first": first, "later": statistics.median(later)}]
            replace_process(stack, worker)
    return rows


def job_ms(client: httpx.Client, case: Case, jpeg: bytes) -> float:
    """Milliseconds from the upload to the result."""
    begin = time.perf_counter()
    accepted = client.post(
        "/predict/", params={"imgsz": case.imgsz}, files={"file": ("a.jpg", jpeg, "image/jpeg")}
    )
    accepted.raise_for_status()
    result = client.get(f"/result/{accepted.json()['task_id']}", params={"wait": 60})
    seconds = time.perf_counter() - begin
    assert result.json()["status"] == "completed", result.text
    return seconds * 1000


def replace_process(stack: Stack, worker: subprocess.Popen[bytes]) -> None:
    """Kill the pool process, and wait for its replacement to say that it is ready."""
    said = "has loaded its model"
    before = stack.logs().count(said)
    (pid,) = pool_pids(worker)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: stack.logs().count(said) > before, seconds=60, what="a replacement")
    stack.wait_ready(processes=1)


def ready_seconds(weights: str) -> dict[str, list[float]]:
    """Seconds from the command until `/ready` says yes: `cold` where the weights must be exported
    first, `warm` where they have been."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + STARTS):
            ports = {name: str(free_port()) for name in ("PORT", "FLOWER_PORT")}
            here = {"DATA_DIR": folder, "MODEL_CACHE_DIR": f"{folder}/cache"}
            stack = Stack(Path(folder), YOLO_MODEL=weights, **here, **ports)
            stack.environment.pop("REDIS_URL")
            stack.environment["EMBEDDED_REDIS_PORT"] = str(free_port())
            url = f"http://127.0.0.1:{ports['PORT']}"
            begin = time.monotonic()
            service = stack.spawn("up", sys.executable, "-m", "yolo_queue.cli.main", "up")
            wait_until(partial(is_ready, url), seconds=300, what="the service is ready")
            times.append(time.monotonic() - begin)
            stop(service)
    return {"cold": times[:1], "warm": times[1:]}


def is_ready(url: str) -> bool:
    try:
        ready: int = httpx.get(url + "/ready", timeout=5).json().get("ready_processes", 0)
    except (httpx.TransportError, ValueError):
        return False
    return ready >= 2


def stop(service: subprocess.Popen[bytes]) -> None:
    service.send_signal(signal.SIGINT)
    service.wait(timeout=60)


if __name__ == "__main__":
    main()
