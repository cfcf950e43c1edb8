"""Whether a long queue makes anything slower: submit and poll with 10 to 10,000 jobs waiting.

python -m bench.flat_cost

Also what a waiting job takes in Redis, as a multiple of its upload, and what it takes in the
gateway. The jobs wait: the only worker is busy for as long as the measurement lasts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import redis
from PIL import Image

from bench.http_load import Connection, get, post_image
from bench.queue_plane import picture
from bench.report import save, spread
from bench.soak import resident_mib
from tests.support.images import encoded
from tests.support.stack import Stack, wait_until

DEPTHS = (10, 100, 1_000, 10_000)
SAMPLES = 200
UPLOADS = (50_000, 100_000, 137_419, 500_000, 2_000_000, 5_000_000)
"""Bytes; the third is ultralytics' bus.jpg."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    runs = [measure() for _ in range(arguments.repeats)]
    lines = [
        "Median milliseconds of each run: its median, smallest and largest over the runs.",
        "",
        "| jobs waiting | submit | poll | gateway, MiB | Redis, bytes a job / upload |",
        "| --- | --- | --- | --- | --- |",
    ]
    for depth in DEPTHS:
        cells = [
            spread([run[str(depth)][name] for run in runs], 2)
            for name in ("submit", "poll", "gateway", "redis")
        ]
        lines.append(f"| {depth:,} | " + " | ".join(cells) + " |")
    lines += ["", "| upload, bytes | Redis, bytes a job / upload |", "| --- | --- |"]
    for size in UPLOADS:
        lines.append(f"| {size:,} | {statistics.median(run[f'{size} B'] for run in runs):.3f} |")
    save("flat_cost", runs, lines)


def measure() -> dict[str, Any]:
    image = picture()
    environment = {
        "MAX_QUEUE_JOBS": "20000",
        "MAX_QUEUE_BYTES": str(1 << 34),
        "TASK_TIME_LIMIT_SECONDS": "3600",
        "SIMULATED_MS": "3600000",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), **environment) as stack,
    ):
        stack.redis.max_bytes = 8 << 30
        stack.redis.start()
        gateway = stack.start_gateway()
        # A few jobs done, so that there is a run time to estimate from; then all of it is held up.
        quick = stack.start_worker("quick", app="bench.simulated_app", SIMULATED_MS="20")
        stack.wait_ready(processes=2)
        asyncio.run(finish(stack.port, image, 20))
        quick.terminate()
        quick.wait(30)
        stack.start_worker("held", app="bench.simulated_app")
        stack.wait_ready(processes=2)
        return asyncio.run(levels(stack, gateway.pid, image))


async def finish(port: int, image: bytes, jobs: int) -> None:
    async with Connection("127.0.0.1", port) as connection:
        for _ in range(jobs):
            accepted = await connection.send(post_image("/predict/", image))
            await connection.send(get(f"/result/{accepted.task_id()}?wait=60"))


async def levels(stack: Stack, pid: int, image: bytes) -> dict[str, Any]:
    store = redis.Redis(port=stack.redis.port)
    figures: dict[str, Any] = {}
    waiting: list[str] = []
    source = random.Random(0)
    async with Connection("127.0.0.1", stack.port) as connection:

        async def submit(data: bytes) -> str:
            answer = await connection.send(post_image("/predict/", data))
            assert answer.status == 201, answer.body
            return answer.task_id()

        held = [await submit(image) for _ in range(2)]
        wait_until(lambda: store.zcard("yolo:leases") == 2, seconds=30, what="both are held up")
        empty = store.info("memory")["used_memory"]
        for depth in DEPTHS:
            while len(waiting) < depth:
                waiting.append(await submit(image))
            # Filling the queue makes Redis rewrite its file beside what is measured; at 10,000 jobs
            # that goes on for seconds after the last of them.
            wait_until(lambda: not rewriting(store), seconds=120, what="the file is rewritten")
            used = store.info("memory")["used_memory"] - empty
            submits, polls = [], []
            for _ in range(SAMPLES):
                begin = time.perf_counter()
                task_id = await submit(image)
                submits.append((time.perf_counter() - begin) * 1000)
                await connection.send(delete(task_id))
                begin = time.perf_counter()
                answer = await connection.send(get(f"/result/{source.choice(waiting)}"))
                polls.append((time.perf_counter() - begin) * 1000)
                assert b'"eta_seconds"' in answer.body, answer.body
            figures[str(depth)] = {
                "submit": statistics.median(submits),
                "poll": statistics.median(polls),
                "gateway": resident_mib(pid),
                "redis": used / len(waiting) / len(image),
            }
        for task_id in (*waiting, *held):
            await connection.send(delete(task_id))
        for size in UPLOADS:
            data = padded(size)
            figures[f"{size} B"] = await redis_bytes(store, connection, data) / len(data)
    return figures


def rewriting(store: redis.Redis) -> bool:
    return bool(store.info("persistence")["aof_rewrite_in_progress"])


def padded(size: int) -> bytes:
    """A JPEG of so many bytes, most of them comments: here only its size counts."""
    data = encoded(Image.new("RGB", (64, 48)), "JPEG")
    comments = b""
    while (missing := size - len(data) - len(comments)) > 4:
        body = min(missing - 4, 65_533)
        comments += b"\xff\xfe" + (body + 2).to_bytes(2) + bytes(body)
    return data[:2] + comments + data[2:]


async def redis_bytes(store: redis.Redis, connection: Connection, data: bytes) -> float:
    """Of one waiting job, from twenty."""
    begin = store.info("memory")["used_memory"]
    ids = []
    for _ in range(20):
        answer = await connection.send(post_image("/predict/", data))
        assert answer.status == 201, answer.body
        ids.append(answer.task_id())
    used = (store.info("memory")["used_memory"] - begin) / len(ids)
    for task_id in ids:
        await connection.send(delete(task_id))
    return float(used)


def delete(task_id: str) -> bytes:
    return f"DELETE /result/{task_id} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


if __name__ == "__main__":
    main()
