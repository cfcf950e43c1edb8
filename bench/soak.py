"""Sends many small jobs through a stack with a no-op detector, and checks that no memory grows.

    python -m bench.soak --jobs 20000

Fails if gateway, workers or Redis have grown by more than 5 % between the 2,000th job and the last,
or if keys are left in Redis after the results' time to live.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.support.images import encoded, noise
from tests.support.processes import mapped_mib, pool_pids
from tests.support.stack import Stack, wait_until

GROWTH = 1.05
WARM_UP_JOBS = 2000
RESULT_TTL_SECONDS = 8
PERMANENT = {b"yolo:stats", b"yolo:marks", b"yolo:model", b"yolo:workers", b"yolo:workers-seen"}
"""Keys that a service has whatever has gone through it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=16)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), RESULT_TTL_SECONDS=str(RESULT_TTL_SECONDS)) as stack,
    ):
        stack.start(app="tests.support.simulated_app")
        (worker,) = stack.workers
        processes = {
            "gateway": [stack.gateway.pid],
            "worker": [worker.pid, *pool_pids(worker)],
        }
        store = redis.Redis(port=stack.redis.port)

        def measure() -> dict[str, float]:
            sizes = {
                name: sum(mapped_mib(pid)["pss"] for pid in pids)
                for name, pids in processes.items()
            }
            sizes["Redis"] = store.info("memory")["used_memory"] / 2**20
            return sizes

        begin = time.monotonic()
        asyncio.run(send(stack.url, WARM_UP_JOBS, arguments.concurrency))
        drain(store, WARM_UP_JOBS)
        wait_until(lambda: all_expired(store), seconds=60, what="results expire")
        before = measure()
        asyncio.run(send(stack.url, arguments.jobs - WARM_UP_JOBS, arguments.concurrency))
        drain(store, arguments.jobs)
        took = time.monotonic() - begin
        wait_until(lambda: all_expired(store), seconds=60, what="results expire")
        after = measure()

    print(f"{arguments.jobs} jobs in {took:.0f} s\n")
    print("| process | MiB after 2,000 | MiB at the end | ratio |\n| --- | --- | --- | --- |")
    failed = False
    for name, size in after.items():
        ratio = size / before[name]
        failed |= ratio > GROWTH
        print(f"| {name} | {before[name]:.1f} | {size:.1f} | {ratio:.3f} |")
    print("keys in Redis are back to the baseline")
    return int(failed)


async def send(url: str, jobs: int, concurrency: int) -> None:
    image = encoded(noise(40, 30), "PNG")
    remaining = iter(range(jobs))
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def stream() -> None:
            for _ in remaining:
                headers = {"Content-Type": "image/png"}
                answer = await client.post("/predict/", content=image, headers=headers)
                while answer.status_code == 503:
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    answer = await client.post("/predict/", content=image, headers=headers)
                answer.raise_for_status()

        await asyncio.gather(*(stream() for _ in range(concurrency)))


def drain(store: redis.Redis, jobs: int) -> None:
    wait_until(
        lambda: int(store.hget("yolo:stats", "jobs:completed") or 0) >= jobs,
        seconds=600,
        what=f"{jobs} jobs are completed",
    )


def all_expired(store: redis.Redis) -> bool:
    """Whether no key of a job is left, nor its memory: KEYS hides what has expired and is not yet
    swept, DBSIZE does not."""
    return left_over(store) == set() and store.dbsize() == len(store.keys("*"))


def left_over(store: Any) -> set[bytes]:
    """Keys that belong to jobs, which leaves out those of kombu and of the workers."""
    return {
        key
        for key in store.keys("*")
        if key not in PERMANENT
        and not key.startswith((b"_kombu", b"yolo:probe", b"yolo.probe"))
        and b"pidbox" not in key
    }


if __name__ == "__main__":
    sys.exit(main())
