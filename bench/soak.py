"""Sends many jobs through a stack, and checks that nothing grows with their number.

    python -m bench.soak --jobs 100000
    python -m bench.soak --jobs 5000 --detector real

After every batch of jobs it waits until their results have expired, and measures: anonymous
memory, open files and threads of each process, keys and memory of Redis, and its append-only file.
After a warm-up of a tenth of the jobs, a line is laid through the points. It fails if one of them
surely grows by more than its bound in the whole run. Writes bench/results/soak_noop.json or
soak_real.json, and the same as .md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis

from bench.report import save
from bench.trend import Trend
from tests.support.http_load import Connection, post_image
from tests.support.images import encoded, noise, photograph
from tests.support.processes import anonymous_mib, open_files, pool_pids, threads
from tests.support.stack import Stack, wait_until

APPS = {"no-op": "tests.support.simulated_app", "real": "worker.app"}
POINTS = 50
WARM_UP = 0.1
"""Of the jobs: caches and heaps reach their size."""
RESULT_TTL_SECONDS = 3
MEMORY_GROWTH = 0.05
"""Of the mean: how much a process' memory may grow in the whole run."""
LEAST_GROWTH_MIB = 1.0
"""What any process may grow by: a small heap grows in steps."""
REDIS_HEAP_MIB = 64.0
"""Of Redis' process, whose heap keeps what its highest peak took, up to the trim threshold that
embedded_redis.py sets. What it has in use shows a leak."""
FILE_GROWTH_MIB = 64.0
"""Redis rewrites its file when it has doubled, but not below 64 MiB: a sawtooth."""
PERMANENT = {
    f"yolo:{name}".encode() for name in ("stats", "marks", "models", "workers", "workers-seen")
}
"""Keys that a service has whatever has gone through it."""

Sample = dict[str, float]
"""Values by name; `jobs` is how many had been done."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--detector", choices=APPS, default="no-op")
    parser.add_argument("--concurrency", type=int, default=16)
    arguments = parser.parse_args()
    begin = time.monotonic()
    samples = run(arguments)
    seconds = time.monotonic() - begin
    rows, failed = judge(samples, arguments.jobs)
    head = f"{arguments.jobs} jobs, {arguments.detector} detector, in {seconds:.0f} s."
    figures = {"jobs": arguments.jobs, "seconds": seconds, "samples": samples}
    save(f"soak_{arguments.detector.replace('-', '')}", figures, [head, "", *rows])
    return int(failed)


def run(arguments: argparse.Namespace) -> list[Sample]:
    real = arguments.detector == "real"
    request = post_image("/predict/", photograph() if real else encoded(noise(40, 30), "PNG"))
    batch = max(1, arguments.jobs // POINTS)
    samples: list[Sample] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), RESULT_TTL_SECONDS=str(RESULT_TTL_SECONDS)) as stack,
        redis.Redis(port=stack.redis.port) as store,
    ):
        stack.start(app=APPS[arguments.detector])
        for jobs in range(batch, arguments.jobs + 1, batch):
            asyncio.run(send(stack.port, request, batch, arguments.concurrency))
            wait_until(partial(have_ended, store, jobs), seconds=600, what="the jobs end")
            wait_until(partial(all_expired, store), seconds=60, what="results expire")
            samples.append({"jobs": jobs, **measure(stack, store)})
            print(f"{jobs} jobs", flush=True)
    return samples


async def send(port: int, request: bytes, jobs: int, concurrency: int) -> None:
    remaining = iter(range(jobs))

    async def stream() -> None:
        async with Connection("127.0.0.1", port) as connection:
            for _ in remaining:
                answer = await connection.send(request)
                assert answer.status == 201, answer.body[:500]

    await asyncio.gather(*(stream() for _ in range(concurrency)))


def measure(stack: Stack, store: Any) -> Sample:
    (worker,) = stack.workers
    pids = {"gateway": stack.gateway.pid, "worker parent": worker.pid, "Redis": stack.redis.pid}
    pids |= {f"pool process {n}": pid for n, pid in enumerate(sorted(pool_pids(worker)), 1)}
    counted: dict[str, Callable[[int], float]] = {
        "MiB": anonymous_mib,
        "open files": open_files,
        "threads": threads,
    }
    sample = {
        f"{name}, {what}": float(count(pid))
        for what, count in counted.items()
        for name, pid in pids.items()
    }
    files = (stack.redis.folder / "appendonlydir").iterdir()
    return sample | {
        "Redis, MiB in use": store.info("memory")["used_memory"] / 2**20,
        "Redis, keys": float(store.dbsize()),
        "Redis, MiB of its file": sum(path.stat().st_size for path in files) / 2**20,
    }


def bound_of(name: str, mean: float) -> float:
    """How much it may grow in the whole run."""
    if name == "Redis, MiB of its file":
        return FILE_GROWTH_MIB
    if name == "Redis, MiB":
        return REDIS_HEAP_MIB
    if name == "Redis, MiB in use":
        return MEMORY_GROWTH * mean
    if "MiB" in name:
        return max(LEAST_GROWTH_MIB, MEMORY_GROWTH * mean)
    return 1.0  # one file, one thread, one key


def judge(samples: list[Sample], jobs: int) -> tuple[list[str], bool]:
    """A table of slopes, and whether something grows."""
    kept = [sample for sample in samples if sample["jobs"] >= WARM_UP * jobs]
    at = [sample["jobs"] for sample in kept]
    rows = [
        "| what | mean | growth in 1,000 jobs | in the run | bound | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    failed = False
    for name in kept[0]:
        if name == "jobs":
            continue
        trend = Trend.through(at, [sample[name] for sample in kept])
        bound = bound_of(name, trend.mean)
        verdict = trend.verdict(jobs, bound)
        failed |= verdict == "grows"
        rows.append(
            f"| {name} | {trend.mean:.1f} | {trend.slope:+.4f} ± {trend.uncertainty:.4f} | "
            f"{trend.growth(jobs):+.2f} | {bound:.1f} | {verdict} |"
        )
    return rows, failed


def have_ended(store: Any, jobs: int) -> bool:
    return int(store.hget("yolo:stats", "jobs:completed") or 0) >= jobs


def all_expired(store: Any) -> bool:
    """Whether no key of a job is left, nor its memory: KEYS hides what has expired and is not yet
    swept, DBSIZE does not."""
    return left_over(store) == set() and store.dbsize() == len(store.keys("*"))


def left_over(store: Any) -> set[bytes]:
    """Keys that belong to jobs, which leaves out those of kombu and of the workers."""
    return {
        key
        for key in store.keys("*")
        if key not in PERMANENT
        and not key.startswith((b"_kombu", b"yolo:model:", b"yolo:probe", b"yolo.probe"))
        and b"pidbox" not in key
    }


if __name__ == "__main__":
    sys.exit(main())
