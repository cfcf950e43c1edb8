"""Measures what a job costs besides its image: CPU of gateway, Redis and worker, no-op detector.

python -m bench.queue_plane
python -m bench.queue_plane --weights yolov8n.pt --runtime openvino    # with a real one
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.report import save, spread
from tests.support.http_load import Connection, post_image
from tests.support.images import noise_jpeg, photograph
from tests.support.processes import cpu_seconds, pool_pids
from tests.support.stack import Stack

CLIENTS = 16
JOB_BYTES = 100_000
PROCESSES = ("gateway", "Redis", "worker parent", "pool processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weights", default="", help="a real model and a photograph instead")
    parser.add_argument("--runtime", default="auto")
    arguments = parser.parse_args()
    image, app, environment = picture(), "tests.support.simulated_app", {}
    if arguments.weights:
        image, app = photograph(), "worker.app"
        weights = str(Path(arguments.weights).resolve())
        environment = {"YOLO_MODEL": weights, "YOLO_RUNTIME": arguments.runtime}
    runs = [measure(image, arguments.seconds, app, environment) for _ in range(arguments.repeats)]
    lines = [
        f"A job of {len(image) / 1000:.0f} KB, submitted and waited for; {CLIENTS} clients.",
        "",
        "| what | median (least-most) |",
        "| --- | --- |",
    ]
    lines += [f"| {n}, CPU ms a job | {spread([r[n] for r in runs], 2)} |" for n in PROCESSES]
    sums = [sum(run[name] for name in PROCESSES) for run in runs]
    lines.append(f"| **sum**, CPU ms a job | {spread(sums, 2)} |")
    lines.append(f"| jobs a second | {spread([run['rate'] for run in runs], 0)} |")
    save(f"job_cost_{arguments.runtime}" if arguments.weights else "queue_plane", runs, lines)


def picture() -> bytes:
    return noise_jpeg(640, 480, JOB_BYTES)


def measure(
    image: bytes, seconds: float, app: str, environment: dict[str, str]
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), **environment) as stack:
        stack.start(app=app)
        (worker,) = stack.workers
        groups = ([stack.gateway.pid], [stack.redis.pid], [worker.pid], pool_pids(worker))
        pids = dict(zip(PROCESSES, groups, strict=True))
        asyncio.run(load(stack.port, image, 3))
        before = {name: cpu_seconds(*group) for name, group in pids.items()}
        begin = time.monotonic()
        jobs = asyncio.run(load(stack.port, image, seconds))
        took = time.monotonic() - begin
        after = {name: cpu_seconds(*group) for name, group in pids.items()}
    costs = {name: (after[name] - before[name]) * 1000 / jobs for name in PROCESSES}
    return {**costs, "rate": jobs / took}


async def load(port: int, image: bytes, seconds: float) -> int:
    jobs = 0
    until = time.monotonic() + seconds

    async def stream() -> None:
        nonlocal jobs
        async with Connection("127.0.0.1", port) as connection:
            while time.monotonic() < until:
                answer = await connection.submit_and_wait(post_image("/predict/", image))
                assert answer.job_status() == "completed", answer.body
                jobs += 1

    await asyncio.gather(*(stream() for _ in range(CLIENTS)))
    return jobs


if __name__ == "__main__":
    main()
