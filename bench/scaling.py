"""Measures jobs a second against the number of pool processes, with a detector of fixed latency.

    python -m bench.scaling

The real gateway, Redis and Celery workers; only the network is simulated, by a sleep, so that 64
"models" fit on a few cores. Two topologies: one worker with N processes, and several workers of
two processes, as replicas are. The curve is compared with a model of two figures measured here:

    jobs/s = min(N / (latency + overhead), cores / CPU seconds a job)

The load generator shares the cores; its CPU counts as part of a job's. Repeats are windows of one
run, one after the other. Writes bench/results/scaling.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.report import save, spread
from tests.support.http_load import closed_loop
from tests.support.images import noise_jpeg
from tests.support.processes import cpu_seconds, pool_pids
from tests.support.stack import Stack

REPLICA = 2
"""Processes of one of several workers, the default of `WORKER_CONCURRENCY`."""
WARM_UP_SECONDS = 1.5
PARTS = ("gateway", "Redis", "worker parents", "pool processes", "load generator")
LINEAR = 0.7
"""Below this share of the ceiling a point says what the overhead is; above it cores are short."""


@dataclass
class Point:
    topology: str
    workers: int
    processes: int
    image_bytes: int
    rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """CPU milliseconds a job, by part."""
    cores_used: float = 0.0
    model: float = 0.0

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def job_cpu_seconds(self) -> float:
        return sum(self.cpu_ms.values()) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--seconds", type=float, default=3, help="of one window")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    images = [picture(size * 1000) for size in arguments.kilobytes]
    counts = sorted(arguments.processes)
    points: list[Point] = []
    for measure in (one_worker, several_workers):
        for point in measure(counts, images, arguments):
            points.append(point)
            where = f"{point.topology}, {point.processes} processes, {point.image_bytes // 1000} KB"
            print(f"{where}: {spread(point.rates)} jobs/s", flush=True)
    latency = arguments.latency_ms / 1000
    overhead, ceilings = fit(points, latency)
    figures = {
        "latency_seconds": latency,
        "overhead_seconds": overhead,
        "ceiling_jobs_per_second": ceilings,
        "points": [asdict(point) for point in points],
    }
    save("scaling", figures, table(points, latency, overhead, ceilings))


def picture(size_bytes: int) -> bytes:
    side = int((size_bytes * 2.5) ** 0.5)
    return noise_jpeg(side, side, size_bytes)


def one_worker(
    counts: list[int], images: list[bytes], arguments: argparse.Namespace
) -> Iterator[Point]:
    with tempfile.TemporaryDirectory() as folder, stack_in(folder, arguments) as stack:
        for count in counts:
            worker = start_worker(stack, count)
            stack.wait_ready(processes=count)
            for image in images:
                point = Point("one worker", 1, count, len(image))
                yield measure(stack, [worker], point, image, arguments)
            worker.terminate()
            worker.wait(timeout=60)


def several_workers(
    counts: list[int], images: list[bytes], arguments: argparse.Namespace
) -> Iterator[Point]:
    """Workers are added to those that run, as `--scale` adds replicas."""
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder, stack_in(folder, arguments) as stack:
        for count in counts:
            # What fits into two processes is one worker: measured already.
            if count <= REPLICA or count % REPLICA:
                continue
            while len(workers) * REPLICA < count:
                workers.append(start_worker(stack, REPLICA))
            stack.wait_ready(processes=count, seconds=300)
            for image in images:
                point = Point("workers of 2", len(workers), count, len(image))
                yield measure(stack, workers, point, image, arguments)


def stack_in(folder: str, arguments: argparse.Namespace) -> Stack:
    stack = Stack(Path(folder), SIMULATED_MS=str(arguments.latency_ms), RESULT_TTL_SECONDS="30")
    stack.start(workers=0)
    return stack


def start_worker(stack: Stack, processes: int) -> subprocess.Popen[bytes]:
    stack.environment["WORKER_CONCURRENCY"] = str(processes)
    return stack.start_worker(app="tests.support.simulated_app")


def measure(
    stack: Stack,
    workers: list[subprocess.Popen[bytes]],
    point: Point,
    image: bytes,
    arguments: argparse.Namespace,
) -> Point:
    children = [pid for worker in workers for pid in pool_pids(worker)]
    groups = (
        *([stack.gateway.pid], [stack.redis.pid], [worker.pid for worker in workers]),
        *(children, [os.getpid()]),
    )
    pids = dict(zip(PARTS, groups, strict=True))
    # Enough that a process that is done always finds the next job waiting.
    clients = point.processes * 2 + 4
    counted = asyncio.run(
        load(stack.port, image, clients, arguments.seconds, arguments.repeats, pids)
    )
    point.rates = [jobs / took for jobs, took, _ in counted]
    jobs = sum(jobs for jobs, _, _ in counted)
    spent = {name: sum(cpu[name] for _, _, cpu in counted) for name in PARTS}
    point.cpu_ms = {name: spent[name] * 1000 / jobs for name in PARTS}
    point.cores_used = sum(spent.values()) / sum(took for _, took, _ in counted)
    return point


async def load(
    port: int,
    image: bytes,
    clients: int,
    seconds: float,
    repeats: int,
    pids: dict[str, list[int]],
) -> list[tuple[int, float, dict[str, float]]]:
    """For each window: jobs done in it, its length, CPU seconds by part."""

    def spent() -> dict[str, float]:
        return {name: cpu_seconds(*group) for name, group in pids.items()}

    windows = []
    async with closed_loop(port, image, clients) as done:
        await asyncio.sleep(WARM_UP_SECONDS)
        for _ in range(repeats):
            jobs, cpu, begin = done(), spent(), time.monotonic()
            await asyncio.sleep(seconds)
            after = spent()
            windows.append(
                (
                    done() - jobs,
                    time.monotonic() - begin,
                    {name: after[name] - cpu[name] for name in after},
                )
            )
    return windows


def fit(points: list[Point], latency: float) -> tuple[float, dict[str, float]]:
    """The overhead of one job in a process, in seconds, and the ceiling for each size of image.

    A job's CPU is taken where the cores are busiest: there it is what limits.
    """
    cores = len(os.sched_getaffinity(0))
    ceilings = {}
    for size in {point.image_bytes for point in points}:
        busiest = max((p for p in points if p.image_bytes == size), key=lambda p: p.cores_used)
        ceilings[str(size)] = cores / busiest.job_cpu_seconds
    linear = [
        point.processes / point.rate - latency
        for point in points
        if point.processes / latency < LINEAR * ceilings[str(point.image_bytes)]
    ]
    overhead = statistics.median(linear) if linear else 0.0
    for point in points:
        point.model = min(point.processes / (latency + overhead), ceilings[str(point.image_bytes)])
    return overhead, ceilings


def table(
    points: list[Point], latency: float, overhead: float, ceilings: dict[str, float]
) -> list[str]:
    lines = [
        f"A detector of {latency * 1000:.0f} ms; jobs a second, median (least-most) of windows. "
        f"Model: min(N / ({latency * 1000:.0f} ms + {overhead * 1000:.1f} ms), ceiling), ceiling "
        + ", ".join(f"{rate:.0f} for {int(size) // 1000} KB" for size, rate in ceilings.items())
        + ".",
        "",
        "| topology | processes | KB | jobs/s | model | ratio | cores used | CPU ms a job |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for p in points:
        name = p.topology if p.workers == 1 else f"{p.workers} {p.topology}"
        lines.append(
            f"| {name} | {p.processes} | {p.image_bytes // 1000} | {spread(p.rates)} | "
            f"{p.model:.1f} | {p.rate / p.model:.2f} | {p.cores_used:.2f} | "
            f"{p.job_cpu_seconds * 1000:.2f} |"
        )
    busiest = max(points, key=lambda p: p.cores_used)
    parts = ", ".join(f"{name} {ms:.2f}" for name, ms in busiest.cpu_ms.items())
    lines += ["", f"CPU ms of a job where the cores are busiest: {parts}."]
    return lines


if __name__ == "__main__":
    main()
