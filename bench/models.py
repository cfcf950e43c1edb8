"""Measures what several models cost: memory of a pool process, and the time until it is ready.

python -m bench.models --weights yolov8n.pt

The models are copies of one file under names of their own, so each has an export of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.memory import RUNTIMES
from bench.report import save
from tests.support.http_load import Connection, post_form
from tests.support.images import photograph
from tests.support.models import renamed_model
from tests.support.processes import mapped_mib, pool_pids
from tests.support.stack import ROOT, Stack

NUMBERS = (1, 2, 4)
JOBS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    weights = Path(parser.parse_args().weights)
    lines = [
        "| models | runtime | resident, MiB | proportional | ready after, s |",
        "|" + " --- |" * 5,
    ]
    figures: dict[str, dict[int, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        names = [f"m{number}" for number in range(max(NUMBERS))]
        files = [renamed_model(weights, Path(folder) / f"{name}.pt") for name in names]
        for runtime, title in RUNTIMES.items():
            figures[runtime] = {}
            for number in NUMBERS:
                models = dict(zip(names[:number], files, strict=False))
                row = figures[runtime][number] = measure(models, runtime)
                lines.append(
                    f"| {number} | {title} | {row['rss']:.0f} | {row['pss']:.0f} | "
                    f"{row['ready_seconds']:.1f} |"
                )
    save("models", figures, lines)


def measure(models: dict[str, Path], runtime: str) -> dict[str, float]:
    """Mean of two pool processes that have run jobs on every model."""
    served = ",".join(f"{name}={path}" for name, path in models.items())
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(
            Path(folder), YOLO_MODELS=served, YOLO_RUNTIME=runtime, MODEL_CACHE_DIR=folder
        ) as stack,
    ):
        stack.start()
        stack.workers[0].terminate()
        stack.workers[0].wait()
        begin = time.monotonic()  # the exports are there by now
        worker = stack.start_worker()
        stack.wait_ready(processes=2, seconds=300)
        ready_seconds = time.monotonic() - begin
        asyncio.run(jobs(stack.port, list(models)))
        rows = [mapped_mib(pid) for pid in pool_pids(worker)]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("rss", "pss")}
    return {**means, "ready_seconds": ready_seconds}


async def jobs(port: int, models: list[str]) -> None:
    async def stream() -> None:
        async with Connection("127.0.0.1", port) as connection:
            for number in range(JOBS * len(models)):
                path = f"/predict/?model={models[number % len(models)]}"
                await connection.submit_and_wait(post_form(path, photograph()))

    await asyncio.gather(stream(), stream())


if __name__ == "__main__":
    main()
