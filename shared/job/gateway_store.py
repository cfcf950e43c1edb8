"""A job's life as a gateway sees it: accept, read, cancel, and the state of the queue. Asyncio.

The workers' side is worker_store.py; both run the same Lua scripts on the same keys (keys.py).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import redis

from shared.errors import IdempotencyConflict, ModelNotFound, NoWorkerReady, StoreUnavailable
from shared.job import upload_storage
from shared.job.celery_result import result_of
from shared.job.keys import Keys, result_key
from shared.job.message import first_message
from shared.job.queue_state import (
    ModelState,
    QueueState,
    RedisMemory,
    per_second,
    queue_full,
)
from shared.job.record import JobRecord, JobState, NewJob
from shared.job.scripts import AsyncLuaScripts
from shared.job.worker_store import accept_arguments
from shared.redis_access.client import bounded, connect_async, unavailable
from shared.settings import Settings

SUBSCRIPTION_PING_SECONDS = 4.0
SLOWEST_WRITE_BYTES_PER_SECOND = 1024 * 1024
ADMISSION_SECONDS = 0.1
"""How old the state of the queue may be that `admit` decides by."""
MEMORY_SECONDS = 0.5
"""How old the state of Redis' memory may be that `admit` decides by."""


class GatewayStore:
    """One instance a gateway. Every method raises `StoreUnavailable` when Redis does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.keys = Keys(settings.yolo_queue)
        # Any: redis-py does not type `execute_command`.
        self.redis: Any = connect_async(settings.redis_url)
        self._lua = AsyncLuaScripts(
            self.redis,
            settings,
            *("accept", "read", "queue", "cancel", "events", "sweep", "recount"),
        )
        self._queue_seen_at = -math.inf
        self._queue_seen: QueueState | None = None
        self._memory_seen_at = -math.inf
        self._memory_seen = RedisMemory(0, 0)
        self._admitted_bytes = 0
        """Since memory was looked at: many uploads fit between two looks."""

    async def close(self) -> None:
        await self.redis.aclose()

    def _visit(self, writing_bytes: int = 0) -> AbstractAsyncContextManager[None]:
        """Bound a visit to Redis. Large uploads take their time on a machine with few cores, which
        does not mean that Redis is away."""
        writing_seconds = writing_bytes / SLOWEST_WRITE_BYTES_PER_SECOND
        return bounded(self._settings.redis_timeout_seconds + writing_seconds)

    # -- submitting -----------------------------------------------------------------------------

    async def admit(self, size: int, model: str) -> ModelState:
        """Refuse before the body is read if there is no such model, the queue is full or Redis is
        short of memory. Returns the model: the default one if `model` is empty.

        An early check, to save the client a useless upload. `accept` decides about room. `size`:
        bytes announced, 0 if unknown. Raises `ModelNotFound`, `NoWorkerReady`, `QueueFull`,
        `StoreUnavailable`.
        """
        now = asyncio.get_running_loop().time()
        queue = self._queue_seen
        async with self._visit():
            if queue is None or now - self._queue_seen_at > ADMISSION_SECONDS:
                queue = self._queue_seen = await self.queue()
                self._queue_seen_at = now
            model = self.model_name(model, queue)
            await self._check_memory(size)
        state = queue.models.get(model) or ModelState.nobody(model)
        max_jobs, max_bytes = queue.limits_of(model, self._settings)
        if state.depth + 1 > max_jobs or state.queued_bytes + size > max_bytes:
            raise queue_full(state.depth, state.work, state.drain_rate)
        return state

    async def _check_memory(self, size: int) -> None:
        """Keep a share of `maxmemory` free for the results of jobs that are accepted already."""
        now = asyncio.get_running_loop().time()
        if now - self._memory_seen_at > MEMORY_SECONDS:
            self._memory_seen_at = now
            self._memory_seen = await self._memory()
            self._admitted_bytes = 0
        limit = self._memory_seen.max_bytes
        used = self._memory_seen.used_bytes + self._admitted_bytes + size
        if limit and used > limit * self._settings.redis_memory_limit_ratio:
            queue = await self.queue()
            raise StoreUnavailable(
                f"Redis has no room: with this image it would use {used / limit:.0%} of its memory "
                "limit; try again later.",
                retry_after_seconds=queue_full(
                    queue.depth, queue.work, queue.drain_rate
                ).retry_after_seconds,
            )
        self._admitted_bytes += size

    async def accept(self, job: NewJob) -> tuple[JobRecord, bool]:
        """Store a job. Returns its record and whether it is new (False: an idempotent replay)."""
        records, is_new = await self.accept_all([job])
        return records[0], is_new

    async def accept_all(self, jobs: Sequence[NewJob]) -> tuple[list[JobRecord], bool]:
        """Store jobs of one owner, all of them or none.

        The uploads are written first, so that no record is ever without its upload. If the gateway
        dies in between, the uploads' time to live removes them.

        Raises `QueueFull`, `IdempotencyConflict`, `StoreUnavailable`.
        """
        ttl = self._settings.record_ttl_seconds
        storing = [upload_storage.storing(self.keys, job, ttl) for job in jobs]
        arguments = accept_arguments(jobs, self._settings)
        async with self._visit(writing_bytes=sum(len(job.image) for job in jobs)):
            try:
                *_, reply = await self._lua.run_among("accept", before=storing, **arguments)
            except redis.OutOfMemoryError:
                # Some uploads may be stored without a record: delete them, unless an earlier try,
                # whose answer was lost, has made the record.
                if not await self.redis.exists(self.keys.job(jobs[0].task_id)):
                    ids = [job.task_id for job in jobs]
                    await self.redis.execute_command(*upload_storage.dropping(self.keys, ids))
                raise
            status, rest = reply
            if status == b"accepted":
                # A Redis that could not append this to its file has answered all the same. It says
                # so from the next command on, PING included (docs/decisions/0002-durability.md).
                await self.redis.ping()
        if status == b"unstored":  # an upload expired before the record could be made
            raise unavailable(redis.TimeoutError())
        if status == b"full":
            raise queue_full(int(rest[0]), int(rest[1]), per_second(float(rest[2])))
        if status == b"conflict":
            raise IdempotencyConflict(
                "This Idempotency-Key was used with another image or other parameters."
            )
        return [_record(view) for view in rest], status == b"accepted"

    async def cancel(self, job: JobRecord) -> tuple[JobRecord, bool]:
        """Cancel a job. Returns its record and whether this did it (False: it had ended)."""
        message = first_message(job.task_id, self.keys.queue, job.traceparent)
        request = secrets.token_hex(8)
        async with self._visit():
            status, view = await self._lua.run(
                "cancel", id=job.task_id, message=message, request=request
            )
        return _record(view), status == b"cancelled"

    # -- upkeep ---------------------------------------------------------------------------------

    async def sweep(self) -> bool:
        """End jobs that waited too long, or whose worker is lost and no other came. Returns whether
        there may be more of them."""
        async with self._visit():
            return bool(await self._lua.run("sweep"))

    async def recount(self, every_seconds: float) -> list[str]:
        """Count again what waits and correct the totals, unless another gateway did so within
        `every_seconds`. Returns what was wrong, in words."""
        async with self._visit():
            corrected = await self._lua.run("recount", every_ms=int(every_seconds * 1000))
        return [words.decode() for words in corrected]

    # -- reading --------------------------------------------------------------------------------

    async def read(
        self, task_id: str, *, with_result: bool = True
    ) -> tuple[JobRecord, memoryview | None] | None:
        """A job's record and, if completed, its result as JSON text. None: no such job."""
        after = [("GET", result_key(task_id))] if with_result else []
        async with self._visit():
            record, *rest = await self._lua.run_among("read", after=after, id=task_id)
        if not record:
            return None
        job = _record(record)
        if not with_result or job.state is not JobState.COMPLETED:
            return job, None
        (meta,) = rest
        # Record and result expire in the same moment, which was just now if there is only one.
        return (job, result_of(task_id, meta)) if meta else None

    async def changes(
        self, task_id: str, after: str
    ) -> tuple[list[tuple[str, dict[str, str]]], JobRecord | None]:
        """A job's events (id, fields) after the event `after` ("" for all), and its record now."""
        async with self._visit():
            entries, view = await self._lua.run("events", id=task_id, after=after)
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
                await pubsub.subscribe(self.keys.changes)
            pinged = False
            while True:
                message = await pubsub.get_message(timeout=SUBSCRIPTION_PING_SECONDS)
                if message is None:  # Silence: make sure that the other end is still there.
                    if pinged:  # A host that is cut off closes no connection.
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

    async def memory(self) -> RedisMemory:
        async with self._visit():
            return await self._memory()

    async def _memory(self) -> RedisMemory:
        info = await self.redis.info("memory")
        return RedisMemory(int(info["used_memory"]), int(info.get("maxmemory", 0)))

    async def queue(self, *, descriptions: bool = False) -> QueueState:
        """`descriptions`: also the names of the models' classes."""
        async with self._visit():
            reply = await self._lua.run("queue", descriptions=descriptions)
        state = QueueState.from_reply(reply)
        # Those of the settings are there before the first worker is.
        named = self._settings.models if self._settings.yolo_models else ()
        for name in filter(None, (self.default_model(state), *named)):
            state.models.setdefault(name, ModelState.nobody(name))
        return state

    def default_model(self, queue: QueueState) -> str:
        """The model of requests that name none: what the settings say, whether a worker serves it
        or not. One that depends on who is there would send clients to another model when a worker
        dies. Without such settings, the only one there is; "" if there are none or several."""
        settings = self._settings
        if {"default_model", "yolo_model", "yolo_models"} & settings.model_fields_set:
            return settings.default_model or next(iter(settings.models))
        return next(iter(queue.models)) if len(queue.models) == 1 else ""

    def model_name(self, name: str, queue: QueueState) -> str:
        """The model that a request means, which may name none. Raises `ModelNotFound`, and
        `NoWorkerReady` if it is not known yet which models there will be."""
        there = f"There are: {', '.join(queue.models)}."
        if name := name or self.default_model(queue):
            if name not in queue.models:
                raise ModelNotFound(f"There is no model {name!r}. {there}")
            return name
        if queue.models:
            raise ModelNotFound(f"Name a model; the gateway has no DEFAULT_MODEL. {there}")
        raise NoWorkerReady(
            "No worker has announced a model yet, and the gateway has no YOLO_MODEL.",
            retry_after_seconds=5,
        )


def _record(flat: list[bytes]) -> JobRecord:
    return JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
