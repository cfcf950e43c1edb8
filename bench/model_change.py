"""Measures a change of weights under load: how long answers take before, during and after it.

python -m bench.model_change --weights yolov8n.pt

One worker serves a model; another with new weights under the same name is started beside it, and
the old one is stopped once the new one is ready. Pictures are sent at a steady rate all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import httpx

from bench.report import save
from tests.support.http_load import Connection, post_form
from tests.support.images import photograph
from tests.support.models import renamed_model
from tests.support.stack import ROOT, Stack
from worker.model.weights import version_of

BEFORE_SECONDS = AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`at`: when it was sent (`time.monotonic`)."""

    at: float
    seconds: float
    version: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--rate", type=float, default=4.0, help="pictures a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = Path(arguments.weights).resolve()
        new = renamed_model(weights, folder / "new.pt")
        settings = {"WORKER_CONCURRENCY": "1", "MODEL_CACHE_DIR": str(folder / "cache")}
        with Stack(folder, YOLO_MODELS=f"m={weights}", **settings) as stack:
            stack.start()
            # Its export is made beforehand, as a deployment does, or it would take the cores.
            prepared = stack.start_worker(YOLO_MODELS=f"n={new}")
            stack.wait_ready(processes=2, seconds=300)
            prepared.terminate()
            prepared.wait()
            answers, moments = asyncio.run(run(stack, new, arguments.rate))
        report(answers, moments, version_of(new), arguments.rate)


async def run(stack: Stack, new: Path, rate: float) -> tuple[list[Answer], list[float]]:
    """All answers, and when the new worker was started, ready, and the old one gone."""
    answers: list[Answer] = []
    body, ended = post_form("/predict/", photograph()), asyncio.Event()

    async def send() -> None:
        at = time.monotonic()
        async with Connection("127.0.0.1", stack.port) as connection:
            answer = await connection.submit_and_wait(body)
        assert answer.job_status() == "completed", answer.body
        version = httpx.Response(200, content=answer.body).json()["model_version"]
        answers.append(Answer(at, time.monotonic() - at, version))

    async def load() -> None:
        async with asyncio.TaskGroup() as group:
            while not ended.is_set():
                group.create_task(send())
                await asyncio.sleep(1 / rate)

    loading = asyncio.create_task(load())
    await asyncio.sleep(BEFORE_SECONDS)
    moments = [time.monotonic()]
    stack.start_worker(YOLO_MODELS=f"m={new}")
    await asyncio.to_thread(stack.wait_ready, processes=2)
    moments.append(time.monotonic())
    stack.workers[0].terminate()
    await asyncio.to_thread(stack.workers[0].wait)
    moments.append(time.monotonic())
    await asyncio.sleep(AFTER_SECONDS)
    ended.set()
    await loading
    return answers, moments


def report(answers: list[Answer], moments: list[float], new: str, rate: float) -> None:
    started, ready, gone = moments
    phases = {
        "before": (0.0, started),
        "the new worker loads": (started, ready),
        "the old one leaves, and after": (ready, float("inf")),
    }
    lines = [
        f"{len(answers)} pictures at {rate:.0f} a second, none without a result; "
        f"the new worker was ready after {ready - started:.1f} s, the old one left in "
        f"{gone - ready:.1f} s.",
        "",
        "| | answers | by the new weights | p50, ms | p99, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    figures: dict[str, dict[str, float]] = {}
    for name, (begin, end) in phases.items():
        chosen = [answer for answer in answers if begin <= answer.at < end]
        cuts = quantiles((answer.seconds * 1000 for answer in chosen), n=100, method="inclusive")
        by_new = sum(answer.version == new for answer in chosen)
        figures[name] = {"answers": len(chosen), "new": by_new, "p50": cuts[49], "p99": cuts[98]}
        lines.append(f"| {name} | {len(chosen)} | {by_new} | {cuts[49]:.0f} | {cuts[98]:.0f} |")
    save("model_change", figures, lines)


if __name__ == "__main__":
    main()
