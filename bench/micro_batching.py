"""Measures images a second with and without micro-batches, through the whole stack.

    python -m bench.micro_batching --weights yolov8n.pt --runtime torch --concurrency 1
    python -m bench.micro_batching --simulated-ms 20

Meant for a GPU. The second form needs none: its detector sleeps that long for a forward pass,
however many pictures it has. That leaves what a batch saves and costs around the network. The
settings take turns, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from bench.report import percentile, save, spread
from bench.throughput import closed_loop, photographs, submit_and_wait
from tests.support.metrics import samples, scrape, value
from tests.support.stack import ROOT, Stack, free_port

Figures = dict[int, dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--concurrency", type=int, default=1, help="pool processes")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 8], help="MICRO_BATCH_JOBS")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--simulated-ms", type=float)
    arguments = parser.parse_args()
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for jobs in arguments.jobs:
                measured = measure(Path(folder) / f"{repeat}-{jobs}", jobs, arguments)
                print(f"MICRO_BATCH_JOBS={jobs}:", measured, flush=True)
                for name, figure in measured.items():
                    figures.setdefault(jobs, {}).setdefault(name, []).append(figure)
    simulated = arguments.simulated_ms is not None
    save("micro_batching_simulated" if simulated else "micro_batching", figures, table(figures))


def measure(folder: Path, jobs: int, arguments: argparse.Namespace) -> dict[str, float]:
    port = free_port()
    simulated = arguments.simulated_ms is not None
    with Stack(
        folder,
        YOLO_MODEL=str(Path(arguments.weights).resolve()),
        YOLO_RUNTIME=arguments.runtime,
        YOLO_DEVICE=arguments.device,
        WORKER_CONCURRENCY=str(arguments.concurrency),
        MICRO_BATCH_JOBS=str(jobs),
        WORKER_METRICS_PORT=str(port),
        SIMULATED_MS=str(arguments.simulated_ms or 0),
    ) as stack:
        stack.start(app="tests.support.simulated_app" if simulated else "worker.app")
        images = photographs()["small"]
        seconds = asyncio.run(
            closed_loop(
                stack.port,
                images,
                submit_and_wait,
                clients=arguments.clients,
                warm_up=min(3.0, arguments.seconds / 3),
                seconds=arguments.seconds,
            )
        )
        now = samples(scrape(f"http://127.0.0.1:{port}/metrics"))
        batches = value(now, "yolo_queue_worker_batches_total")
        together = value(now, "yolo_queue_worker_batch_jobs_total")
        done = value(now, "yolo_queue_worker_attempts_total", outcome="completed")
        return {
            "images/s": round(len(seconds) / arguments.seconds, 1),
            "p50 s": round(statistics.median(seconds), 3),
            "p95 s": round(percentile(seconds, 95), 3),
            "jobs a pass": round(done / (done - together + batches), 2),
        }


def table(figures: Figures) -> list[str]:
    names = list(next(iter(figures.values())))
    lines = ["Median of the repeats, smallest and largest in brackets.", ""]
    lines += [f"| MICRO_BATCH_JOBS | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for jobs, measured in figures.items():
        cells = [spread(measured[name], 3 if name.endswith(" s") else 1) for name in names]
        lines.append(f"| {jobs} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
