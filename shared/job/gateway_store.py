"""Owns the gateway's side of a job's life: accept, read, and the state of the queue. Asyncio.

The workers' side is job_store.py; both run the same Lua scripts on the same keys (job_keys.py).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import IdempotencyConflict, QueueFull, StoreUnavailable
from shared.job.celery_result import result_of
from shared.job.keys import image_key, job_key, result_key
from shared.job.message import first_message
from shared.job.record import JobRecord, JobState, NewJob
from shared.job.scripts import AsyncLuaScripts
from shared.job.worker_store import accept_arguments
from shared.redis_access.client import bounded, connect_async, unavailable
from shared.settings import Settings

SUBSCRIPTION_PING_SECONDS = 4.0
SLOWEST_WRITE_BYTES_PER_SECOND = 1024 * 1024
ADMISSION_SECONDS = 0.1
"""How old the look at the queue may be that spares an upload."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue at one moment. Ages in seconds, rate in jobs a second."""

    depth: int
    in_flight: int
    oldest_age_seconds: float
    ready_processes: int
    drain_rate: float | None
    stats: dict[str, int]
    workers: dict[str, dict[str, Any]]
    dead_letters: int


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """How full a Redis is; `max_bytes` is 0 if it has no limit."""

    used_bytes: int
    max_bytes: int


class GatewayStore:
    """One instance a gateway. Every method raises `StoreUnavailable` when Redis does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = settings.yolo_queue
        self.redis = connect_async(settings.redis_url)
        self._images = (
            connect_async(settings.image_redis_url) if settings.image_redis_url else self.redis
        )
        self._lua = AsyncLuaScripts(
            self.redis,
            self._queue,
            *("accept", "read", "queue", "cancel", "changes", "sweep", "recount"),
        )
        self._queue_seen_at = -math.inf
        self._queue_seen: QueueState | None = None
        self._memory_checked_at = -math.inf
        self._memory = RedisMemory(0, 0)
        self._admitted_bytes = 0
        """Since memory was looked at: many uploads fit between two looks."""

    async def close(self) -> None:
        await self.redis.aclose()
        if self._images is not self.redis:
            await self._images.aclose()

    def _visit(self, writing: int = 0) -> AbstractAsyncContextManager[None]:
        """`writing`: bytes of images that are sent. Many large ones at once take their time on a
        machine with few cores, without Redis being away."""
        return bounded(self._settings.redis_timeout_seconds + _seconds_to_write(writing))

    # -- submitting -----------------------------------------------------------------------------

    async def admit(self, size: int) -> None:
        """Refuse before the body is read when the queue is full or Redis is short of memory.

        `accept` decides; this only spares the upload. `size`: bytes announced, 0 if unknown.
        """
        now = asyncio.get_running_loop().time()
        queue = self._queue_seen
        async with self._visit():
            if queue is None or now - self._queue_seen_at > ADMISSION_SECONDS:
                queue = self._queue_seen = await self.queue()
                self._queue_seen_at = now
            await self._check_memory(size)
        if queue.depth >= self._settings.max_queue_jobs or (
            queue.stats.get("queued_bytes", 0) + size > self._settings.max_queue_bytes
        ):
            raise self._full(queue.depth, queue.drain_rate)

    async def accept(self, job: NewJob) -> tuple[JobRecord, bool]:
        """Store a job. Returns its record and whether it is new (False: an idempotent replay)."""
        records, is_new = await self.accept_all([job])
        return records[0], is_new

    async def accept_all(self, jobs: Sequence[NewJob]) -> tuple[list[JobRecord], bool]:
        """Store jobs of one owner, all of them or none.

        The images are written first, so that a record never stands without its own; if the gateway
        dies in between, the images' time to live removes them.
        """
        settings = self._settings
        ttl = settings.record_ttl_seconds
        keys = [image_key(self._queue, job.task_id) for job in jobs]
        images = [("SET", key, job.image, "EX", ttl) for key, job in zip(keys, jobs, strict=True)]
        arguments = accept_arguments(jobs, settings)
        async with self._visit(writing=sum(len(job.image) for job in jobs)):
            try:
                if self._images is self.redis:
                    *_, reply = await self._lua.run_among("accept", *arguments, before=images)
                else:
                    for key, job in zip(keys, jobs, strict=True):
                        await self._images.set(key, job.image, ex=ttl)
                    reply = await self._lua.run("accept", *arguments)
            except redis.OutOfMemoryError:
                # Some images, perhaps, and no record; unless a try before this one made it, of
                # which the answer was lost.
                if not await self.redis.exists(job_key(self._queue, jobs[0].task_id)):
                    await self._images.unlink(*keys)
                raise
            status, rest = reply
            if status == b"accepted":
                # A Redis that could not append this to its file has replied all the same. From the
                # next command on it says so, PING included (docs/decisions/0002-durability.md).
                await self.redis.ping()
                if self._images is not self.redis:
                    await self._images.ping()
            else:
                await self._images.unlink(*keys)
        if status == b"unstored":  # its time to live was over before the record could be made
            raise unavailable(redis.TimeoutError())
        if status == b"full":
            interval_us = float(rest[1])
            raise self._full(int(rest[0]), 1e6 / interval_us if interval_us else None)
        if status == b"conflict":
            raise IdempotencyConflict(
                "This Idempotency-Key was used with another image or other parameters."
            )
        return [_record(view) for view in rest], status == b"accepted"

    async def cancel(self, job: JobRecord) -> tuple[JobRecord, bool]:
        """Cancel a job. Returns its record and whether this did it (False: it had ended)."""
        settings, task_id = self._settings, job.task_id
        async with self._visit():
            status, view = await self._lua.run(
                "cancel",
                task_id,
                settings.result_ttl_seconds,
                settings.max_queue_seconds * 1000,
                first_message(task_id, self._queue, job.traceparent),
            )
        if status == b"cancelled" and self._images is not self.redis:
            # It is cancelled by now, whatever becomes of the image: its time to live is the net.
            with suppress(StoreUnavailable):
                async with self._visit():
                    await self._images.unlink(image_key(self._queue, task_id))
        return _record(view), status == b"cancelled"

    # -- upkeep ---------------------------------------------------------------------------------

    async def sweep(self) -> bool:
        """End jobs that waited too long, or whose worker is lost and no other came. Returns whether
        there may be more of them."""
        settings = self._settings
        async with self._visit():
            _ended, more = await self._lua.run(
                "sweep", settings.result_ttl_seconds, settings.max_queue_seconds * 1000
            )
        return bool(more)

    async def recount(self, every_seconds: float) -> list[str]:
        """Count again what waits and correct the totals, unless another gateway did so within
        `every_seconds`. Returns what was wrong, in words."""
        async with self._visit():
            corrected = await self._lua.run("recount", int(every_seconds * 1000))
        return [words.decode() for words in corrected]

    async def _check_memory(self, size: int) -> None:
        """Keep a share of `maxmemory` free for the results of what is accepted already."""
        now = asyncio.get_running_loop().time()
        if now - self._memory_checked_at > 0.5:
            self._memory_checked_at = now
            self._memory = await _memory_of(self._images)
            self._admitted_bytes = 0
        limit = self._memory.max_bytes
        used = self._memory.used_bytes + self._admitted_bytes + size
        if limit and used > limit * self._settings.redis_memory_limit_ratio:
            queue = await self.queue()
            error = self._full(queue.depth, queue.drain_rate)
            raise StoreUnavailable(
                f"Redis has no room: with this image it would use {used / limit:.0%} of its memory "
                "limit; try again later.",
                retry_after_seconds=error.retry_after_seconds,
            )
        self._admitted_bytes += size

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
    ) -> tuple[JobRecord, memoryview | None] | None:
        """A job's record and, when completed, its result as JSON text. None: no such job."""
        settings = self._settings
        async with self._visit():
            record, *rest = await self._lua.run_among(
                "read",
                task_id,
                settings.result_ttl_seconds,
                settings.max_queue_seconds * 1000,
                after=[("GET", result_key(task_id))] if with_result else [],
            )
        if not record:
            return None
        job = _record(record)
        if not with_result or job.state is not JobState.COMPLETED:
            return job, None
        (meta,) = rest
        # Record and result end in the same moment, which was just now if there is only one.
        return (job, result_of(task_id, meta)) if meta else None

    async def changes(
        self, task_id: str, after: str
    ) -> tuple[list[tuple[str, dict[str, str]]], JobRecord | None]:
        """A job's events (id, fields) after the event `after` ("" for all), and its record now."""
        async with self._visit():
            entries, view = await self._lua.run("changes", task_id, after)
        events = [
            (
                entry_id.decode(),
                {k.decode(): v.decode() for k, v in zip(flat[::2], flat[1::2], strict=True)},
            )
            for entry_id, flat in entries
        ]
        return events, _record(view) if view else None

    async def subscribe(self) -> AsyncIterator[tuple[str, str] | None]:
        """(task id, state) at every change of any job; None once the subscription stands."""
        async with self.redis.pubsub() as pubsub:
            async with asyncio.timeout(SUBSCRIPTION_PING_SECONDS):
                await pubsub.subscribe(f"{self._queue}:changes")
            pinged = False
            while True:
                message = await pubsub.get_message(timeout=SUBSCRIPTION_PING_SECONDS)
                if message is None:  # Silence: make sure that the other end is still there.
                    if pinged:  # A host that is gone closes no connection.
                        raise redis.ConnectionError("the subscription does not answer")
                    pinged = True
                    await pubsub.ping()
                    continue
                pinged = False
                if message["type"] == "subscribe":
                    yield None
                elif message["type"] == "message":
                    task_id, _, state = message["data"].decode(errors="replace").partition(" ")
                    yield task_id, state

    async def model(self) -> dict[str, Any] | None:
        """The model that workers serve, as the last one to load it described it."""
        async with self._visit():
            text = await self.redis.get(f"{self._queue}:model")
        return json.loads(text) if text else None

    async def memory(self) -> dict[str, RedisMemory]:
        """Of the Redis that holds the `jobs`, and of another that holds the `images`, if any."""
        async with self._visit():
            memory = {"jobs": await _memory_of(self.redis)}
            if self._images is not self.redis:
                memory["images"] = await _memory_of(self._images)
        return memory

    async def queue(self) -> QueueState:
        async with self._visit():
            reply = await self._lua.run("queue")
        depth, in_flight, oldest_ms, slots, interval_us, stats, workers, dead, _now = reply
        return QueueState(
            depth=depth,
            in_flight=in_flight,
            oldest_age_seconds=int(oldest_ms) / 1000,
            ready_processes=slots,
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


async def _memory_of(client: redis.asyncio.Redis) -> RedisMemory:
    info = await client.info("memory")
    return RedisMemory(int(info["used_memory"]), int(info.get("maxmemory", 0)))


def _seconds_to_write(size_bytes: int) -> float:
    return size_bytes / SLOWEST_WRITE_BYTES_PER_SECOND


def _record(flat: list[bytes]) -> JobRecord:
    return JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
