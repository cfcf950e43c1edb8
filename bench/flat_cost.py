"""Measures whether a long queue slows submit and poll, with 10 to 10,000 jobs waiting.

python -m bench.flat_cost

A second service with 10 jobs waiting is asked in turn with the one that has the long queue. So the
machine's own slow minutes, which change a millisecond by half, slow both. Also measured: the memory
of a waiting job in Redis, as a multiple of its upload, and in the gateway. The jobs wait because
the only worker is busy for as long as the measurement lasts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from PIL import Image

from bench.queue_plane import picture
from bench.report import save, spread
from tests.support.http_load import Connection, delete, get, post_image
from tests.support.images import encoded
from tests.support.processes import resident_mib
from tests.support.stack import Stack, wait_until

DEPTHS = (10, 100, 1_000, 10_000)
SHALLOW = 10
SAMPLES = 300
UPLOADS = (50_000, 100_000, 137_419, 500_000, 2_000_000, 5_000_000)
"""Bytes; the third is ultralytics' bus.jpg."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    runs = [measure() for _ in range(arguments.repeats)]
    lines = [
        "Median of each run: its median, smallest and largest over the runs. Ratios are to a",
        f"service with {SHALLOW} jobs waiting on the same machine, asked in turn with this one.",
        "",
        "| jobs waiting | submit, ms | ratio | poll, ms | ratio | gateway, MiB "
        "| Redis, bytes a job / upload |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for depth in DEPTHS:
        cells = [
            spread([run[str(depth)][name] for run in runs], 2)
            for name in ("submit", "submit_ratio", "poll", "poll_ratio", "gateway", "redis")
        ]
        lines.append(f"| {depth:,} | " + " | ".join(cells) + " |")
    lines += ["", "| upload, bytes | Redis, bytes a job / upload |", "| --- | --- |"]
    for size in UPLOADS:
        lines.append(f"| {size:,} | {statistics.median(run[f'{size} B'] for run in runs):.3f} |")
    save("flat_cost", runs, lines)


def measure() -> dict[str, Any]:
    image = picture()
    with (
        tempfile.TemporaryDirectory() as folder,
        held_up(Path(folder, "deep"), image) as deep,
        held_up(Path(folder, "shallow"), image) as shallow,
    ):
        return asyncio.run(compare(deep, shallow, image))


@contextmanager
def held_up(folder: Path, image: bytes) -> Iterator[Stack]:
    """A service whose only worker is busy, with a known run time to estimate from."""
    environment = {
        "MAX_QUEUE_JOBS": "20000",
        "MAX_QUEUE_BYTES": str(1 << 34),
        "TASK_TIME_LIMIT_SECONDS": "3600",
        "SIMULATED_MS": "3600000",
    }
    folder.mkdir()
    with Stack(folder, **environment) as stack:
        stack.redis.max_bytes = 8 << 30
        stack.start(workers=0)
        quick = stack.start_worker("quick", app="tests.support.simulated_app", SIMULATED_MS="20")
        stack.wait_ready(processes=2)
        asyncio.run(finish(stack.port, image, 20))
        quick.terminate()
        quick.wait(30)
        stack.start_worker("held", app="tests.support.simulated_app")
        stack.wait_ready(processes=2)
        yield stack


async def finish(port: int, image: bytes, jobs: int) -> None:
    async with Connection("127.0.0.1", port) as connection:
        for _ in range(jobs):
            await connection.submit_and_wait(post_image("/predict/", image))


class Queue:
    """The jobs that wait in one service, and how long it takes to answer about them."""

    def __init__(self, stack: Stack, connection: Connection, image: bytes) -> None:
        self.store = redis.Redis(port=stack.redis.port)
        self._connection, self._image = connection, image
        self._waiting: list[str] = []
        self._held: list[str] = []
        self._source = random.Random(0)
        self.submits: list[float] = []
        self.polls: list[float] = []

    async def hold_up(self) -> None:
        self._held = [await self.submit(self._image) for _ in range(2)]
        wait_until(
            lambda: self.store.zcard("yolo:leases") == 2, seconds=30, what="both are held up"
        )

    def used_bytes(self) -> int:
        return int(self.store.info("memory")["used_memory"])

    async def submit(self, data: bytes) -> str:
        answer = await self._connection.send(post_image("/predict/", data))
        assert answer.status == 201, answer.body
        return answer.task_id()

    async def cancel(self, task_id: str) -> None:
        await self._connection.send(delete(f"/result/{task_id}"))

    async def fill(self, depth: int) -> float:
        """Submit until so many wait. Returns the bytes in Redis that each new one takes."""
        before, new = self.used_bytes(), depth - len(self._waiting)
        while len(self._waiting) < depth:
            self._waiting.append(await self.submit(self._image))
        # Filling the queue makes Redis rewrite its file beside what is measured; at 10,000 jobs
        # that goes on for seconds after the last of them.
        wait_until(lambda: not rewriting(self.store), seconds=120, what="the file is rewritten")
        return (self.used_bytes() - before) / new

    def forget_samples(self) -> None:
        self.submits, self.polls = [], []

    async def sample(self) -> None:
        begin = time.perf_counter()
        task_id = await self.submit(self._image)
        self.submits.append((time.perf_counter() - begin) * 1000)
        await self.cancel(task_id)
        begin = time.perf_counter()
        answer = await self._connection.send(get(f"/result/{self._source.choice(self._waiting)}"))
        self.polls.append((time.perf_counter() - begin) * 1000)
        assert b'"eta_seconds"' in answer.body, answer.body

    async def empty(self) -> None:
        for task_id in (*self._waiting, *self._held):
            await self.cancel(task_id)

    async def bytes_of(self, data: bytes) -> float:
        """Bytes in Redis that one waiting job takes, from twenty of them."""
        begin = self.used_bytes()
        ids = [await self.submit(data) for _ in range(20)]
        used = (self.used_bytes() - begin) / len(ids)
        for task_id in ids:
            await self.cancel(task_id)
        return used


async def compare(deep: Stack, shallow: Stack, image: bytes) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with (
        Connection("127.0.0.1", deep.port) as to_deep,
        Connection("127.0.0.1", shallow.port) as to_shallow,
    ):
        long, short = Queue(deep, to_deep, image), Queue(shallow, to_shallow, image)
        for queue in (long, short):
            await queue.hold_up()
        await short.fill(SHALLOW)
        for depth in DEPTHS:
            in_redis = await long.fill(depth)
            for queue in (long, short):
                queue.forget_samples()
            for _ in range(SAMPLES):
                await long.sample()
                await short.sample()
            submit, poll = statistics.median(long.submits), statistics.median(long.polls)
            figures[str(depth)] = {
                "submit": submit,
                "submit_ratio": submit / statistics.median(short.submits),
                "poll": poll,
                "poll_ratio": poll / statistics.median(short.polls),
                "gateway": resident_mib(deep.gateway.pid),
                "redis": in_redis / len(image),
            }
        await long.empty()
        for size in UPLOADS:
            data = padded(size)
            figures[f"{size} B"] = await long.bytes_of(data) / len(data)
    return figures


def rewriting(store: redis.Redis) -> bool:
    return bool(store.info("persistence")["aof_rewrite_in_progress"])


def padded(size: int) -> bytes:
    """A JPEG of so many bytes, most of them comments, since only its size matters here."""
    data = encoded(Image.new("RGB", (64, 48)), "JPEG")
    comments = b""
    while (missing := size - len(data) - len(comments)) > 4:
        body = min(missing - 4, 65_533)
        comments += b"\xff\xfe" + (body + 2).to_bytes(2) + bytes(body)
    return data[:2] + comments + data[2:]


if __name__ == "__main__":
    main()
