"""Measures jobs with many tiles: how much faster they get with more processes, what they cost other
clients, and the memory that they take.

    python -m bench.parts --weights yolov8n.pt

- Speed-up: the real service with a detector that only sleeps, so that more processes than cores say
  something. A picture of 48 megapixels in 192 tiles.
- Other clients: the real model, two processes. One client sends small pictures, one after the
  other, first alone and then while another client's job of 192 tiles runs.
- Memory: the largest resident size of a pool process after jobs of 12, 48 and 100 megapixels.

Saves the figures under bench/results, by the name of the weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.report import save
from tests.support.images import encoded, many_codes, sample
from tests.support.processes import peak_resident_mib, pool_pids
from tests.support.stack import DEMO_MODEL, Stack
from yolo_queue import Client

PASS_MS = 40
"""Of the simulated detector; YOLOv8n takes about as long for a tile on two cores."""
PROCESSES = 1, 2, 4, 8
REPEATS = 3
LARGE = {"12 megapixels": (8, 6), "48 megapixels": (16, 12), "100 megapixels": (25, 16)}
"""Columns and rows of 500 pixels."""
SECONDS = 20.0
"""How long small pictures are sent without a large one."""


def large_picture(name: str) -> bytes:
    return encoded(many_codes(*LARGE[name])[0], "JPEG", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEMO_MODEL)
    weights = parser.parse_args().weights.resolve()
    figures: dict[str, Any] = {"pass_ms": PASS_MS, "speed_up": {}}
    lines = [
        f"One job of 48 megapixels, {PASS_MS} ms a pass, simulated:",
        "",
        "| processes | s | times as fast as one |",
        "| --- | --- | --- |",
    ]
    picture = large_picture("48 megapixels")
    for processes in PROCESSES:
        seconds = figures["speed_up"][processes] = alone(picture, processes)
        ratio = figures["speed_up"][PROCESSES[0]] / seconds
        lines.append(f"| {processes} | {seconds:.2f} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"YOLO_MODEL": str(weights), "WORKER_CONCURRENCY": "2"}
        with Stack(Path(folder), API_KEYS="heavy,light", **settings) as stack:
            stack.start()
            stack.wait_ready(processes=2)
            lines += ["", *others(stack, picture, figures)]
            lines += ["", *memory(stack, figures)]
    save(f"parts_{weights.stem}", figures, lines)


def alone(picture: bytes, processes: int) -> float:
    """Median seconds of one job on an idle service."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"WORKER_CONCURRENCY": str(processes), "SIMULATED_MS": str(PASS_MS)}
        with Stack(Path(folder), **settings) as stack:
            stack.start(app="tests.support.simulated_app")
            stack.wait_ready(processes=processes)
            with Client(stack.url) as queue:
                return statistics.median(timed(queue, picture) for _ in range(REPEATS))


def timed(queue: Client, picture: bytes) -> float:
    begin = time.perf_counter()
    queue.predict(picture, tile=640, annotate=False).wait(timeout=300)
    return time.perf_counter() - begin


def others(stack: Stack, picture: bytes, figures: dict[str, Any]) -> list[str]:
    """Latency of one client's small pictures, without and beside another's large one."""
    small = sample()
    with Client(stack.url, api_key="light") as light, Client(stack.url, api_key="heavy") as heavy:
        light.predict(small).wait()
        large_alone = timed(heavy, picture)
        latencies = {"alone": latencies_until(light, small, time.monotonic() + SECONDS)}
        job = threading.Thread(target=timed, args=(heavy, picture))
        job.start()
        latencies["beside"] = latencies_until(light, small, None, job)
    lines = [
        f"Small pictures of another client (the large one alone takes {large_alone:.1f} s):",
        "",
        "| | pictures | p50, ms | p95, ms |",
        "| --- | --- | --- | --- |",
    ]
    for name, seconds in latencies.items():
        quantiles = statistics.quantiles(seconds, n=20)
        figures[name] = {"count": len(seconds), "p50_s": quantiles[9], "p95_s": quantiles[18]}
        lines.append(
            f"| {name} | {len(seconds)} | {quantiles[9] * 1000:.0f} | {quantiles[18] * 1000:.0f} |"
        )
        print(lines[-1], flush=True)
    figures["large_alone_s"] = large_alone
    return lines


def latencies_until(
    queue: Client, image: bytes, ends: float | None, job: threading.Thread | None = None
) -> list[float]:
    """Of one picture after the other, until a time, or until another job has ended."""
    latencies = []
    while job.is_alive() if job else time.monotonic() < (ends or 0):
        begin = time.perf_counter()
        queue.predict(image).wait(timeout=300)
        latencies.append(time.perf_counter() - begin)
    return latencies


def memory(stack: Stack, figures: dict[str, Any]) -> list[str]:
    """Of the pool process that has grown the most."""
    lines = ["| job with tiles | largest resident process, MiB |", "| --- | --- |"]
    figures["peak_mib"] = {}
    with Client(stack.url, api_key="heavy") as heavy:
        for name in LARGE:
            heavy.predict(large_picture(name), tile="auto").wait(timeout=300)
            peak = max(map(peak_resident_mib, pool_pids(stack.workers[0])))
            figures["peak_mib"][name] = peak
            lines.append(f"| {name} | {peak:.0f} |")
            print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
