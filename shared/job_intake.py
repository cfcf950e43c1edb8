"""Owns the gateway's side of a job's life: accept, read, and the state of the queue. Asyncio.

The workers' side is job_store.py; both run the same Lua scripts on the same keys (job_keys.py).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import IdempotencyConflict, QueueFull, StoreUnavailable
from shared.job_keys import image_key, script
from shared.job_store import accept_arguments
from shared.jobs import JobRecord, NewJob
from shared.redis_client import UNAVAILABLE, connect_async, unavailable
from shared.settings import Settings
from shared.task_message import task_message


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue at one moment. Ages in seconds, rate in jobs a second."""

    depth: int
    in_flight: int
    oldest_age_seconds: float
    ready_slots: int
    drain_rate: float | None
    stats: dict[str, int]
    workers: dict[str, dict[str, Any]]
    dead_letters: int


class JobIntake:
    """One instance a gateway. Every method raises `StoreUnavailable` when Redis does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = settings.yolo_queue
        timeout = settings.redis_timeout_seconds
        self.redis = connect_async(settings.redis_url, timeout_seconds=timeout)
        self._images = (
            connect_async(settings.image_redis_url, timeout_seconds=timeout)
            if settings.image_redis_url
            else self.redis
        )
        self._scripts = {
            name: self.redis.register_script(script(name)) for name in ("accept", "read", "queue")
        }
        self._memory_checked_at = -math.inf
        self._memory_ratio = 0.0

    async def close(self) -> None:
        await self.redis.aclose()
        if self._images is not self.redis:
            await self._images.aclose()

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[None]:
        """Bounds every visit to Redis, retries and reconnects included."""
        try:
            async with asyncio.timeout(self._settings.redis_timeout_seconds):
                yield
        except (TimeoutError, redis.OutOfMemoryError, *UNAVAILABLE) as error:
            raise unavailable(error) from error

    async def _run(self, name: str, *args: Any) -> Any:
        return await self._scripts[name](keys=[self._queue], args=list(args))

    # -- submitting -----------------------------------------------------------------------------

    async def admit(self, size: int) -> None:
        """Refuse before the body is read when the queue is full or Redis is short of memory.

        `accept` decides; this only spares the upload. `size`: bytes announced, 0 if unknown.
        """
        async with self._store():
            queue = await self.queue()
            await self._check_memory(size)
        if queue.depth >= self._settings.max_queue_jobs or (
            queue.stats.get("queued_bytes", 0) + size > self._settings.max_queue_bytes
        ):
            raise self._full(queue.depth, queue.drain_rate)

    async def accept(self, job: NewJob) -> tuple[JobRecord, bool]:
        """Store a job. Returns its record and whether it is new (False: an idempotent replay).

        The image is written first, so that a record never stands without it; if the gateway dies
        in between, the image's own time to live removes it.
        """
        settings = self._settings
        key = image_key(self._queue, job.task_id)
        message = task_message(job.task_id, self._queue)
        async with self._store():
            await self._images.set(key, job.image, ex=settings.record_ttl_seconds)
            status, rest = await self._run(
                "accept", *accept_arguments(job, settings, message=message)
            )
            if status != b"accepted":
                await self._images.unlink(key)
        if status == b"full":
            interval_us = float(rest[1])
            raise self._full(int(rest[0]), 1e6 / interval_us if interval_us else None)
        if status == b"conflict":
            raise IdempotencyConflict(
                "This Idempotency-Key was used with another image or other parameters."
            )
        return _record(rest), status == b"accepted"

    async def _check_memory(self, size: int) -> None:
        """Keep a share of `maxmemory` free for the results of what is accepted already."""
        now = asyncio.get_running_loop().time()
        if now - self._memory_checked_at > 0.5:
            self._memory_checked_at = now
            info = await self._images.info("memory")
            limit = int(info.get("maxmemory", 0))
            self._memory_ratio = int(info["used_memory"]) / limit if limit else 0.0
        if self._memory_ratio > self._settings.redis_memory_limit_ratio:
            queue = await self.queue()
            error = self._full(queue.depth, queue.drain_rate)
            raise StoreUnavailable(
                f"Redis uses {self._memory_ratio:.0%} of its memory limit; try again later.",
                retry_after_seconds=error.retry_after_seconds,
            )

    def _full(self, depth: int, drain_rate: float | None) -> QueueFull:
        # Time for a tenth of the queue to drain, so that those who come back find room.
        seconds = min(300.0, max(1.0, depth / 10 / drain_rate)) if drain_rate else 30.0
        return QueueFull(
            f"The queue is full ({depth} jobs waiting); try again in {math.ceil(seconds)} s.",
            retry_after_seconds=seconds,
        )

    # -- reading --------------------------------------------------------------------------------

    async def read(
        self, task_id: str, *, with_result: bool = True
    ) -> tuple[JobRecord, dict[str, Any] | None] | None:
        """A job's record and, when completed, what its task returned. None: no such job."""
        settings = self._settings
        async with self._store():
            record, meta = await self._run(
                "read",
                task_id,
                settings.result_ttl_seconds,
                settings.max_queue_seconds * 1000,
                int(with_result),
            )
        if not record:
            return None
        return _record(record), json.loads(meta)["result"] if meta else None

    async def queue(self) -> QueueState:
        async with self._store():
            reply = await self._run("queue")
        depth, in_flight, oldest_ms, slots, interval_us, stats, workers, dead, _now = reply
        return QueueState(
            depth=depth,
            in_flight=in_flight,
            oldest_age_seconds=int(oldest_ms) / 1000,
            ready_slots=slots,
            drain_rate=1e6 / float(interval_us) if float(interval_us) > 0 else None,
            stats={
                key.decode(): int(value) for key, value in zip(stats[::2], stats[1::2], strict=True)
            },
            workers={
                name.decode(): json.loads(report)
                for name, report in zip(workers[::2], workers[1::2], strict=True)
            },
            dead_letters=dead,
        )


def _record(flat: list[bytes]) -> JobRecord:
    return JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
