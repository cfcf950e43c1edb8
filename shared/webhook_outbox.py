"""Owns the notices that wait in Redis until their receiver has them. Asyncio.

They are written by the script that ends a job (common.lua), and outlive it.
"""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import redis.asyncio

from shared.lua_scripts import AsyncLuaScripts
from shared.redis_client import bounded
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Webhook:
    """A finished job's notice on its way; `attempt` counts from 1, `payload` is None at first."""

    task_id: str
    url: str
    attempt: int
    payload: bytes | None


class WebhookOutbox:
    """Every method raises `StoreUnavailable` when Redis does not answer."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._redis = client
        self._queue = settings.yolo_queue
        self._timeout_seconds = settings.redis_timeout_seconds
        self._lua = AsyncLuaScripts(client, self._queue, "webhooks")

    async def take_due(self, lease_seconds: float) -> Webhook | None:
        """Take a webhook that is due; it comes back after `lease_seconds` unless settled."""
        async with self._visit():
            found = await self._lua.run("webhooks", int(lease_seconds * 1000))
        if not found:
            return None
        task_id, attempt, (url, payload, _) = found
        if url is None:  # its letter outlived its time
            await self.settle(task_id.decode())
            return None
        return Webhook(task_id.decode(), url.decode(), int(attempt), payload)

    async def keep_payload(self, task_id: str, payload: bytes) -> None:
        """Keep what is sent, so that a later try sends the same after the job is gone."""
        async with self._visit():
            await self._redis.hset(self._letter(task_id), "payload", payload)

    async def postpone(self, task_id: str, seconds: float) -> None:
        due_ms = int((time.time() + seconds) * 1000)
        async with self._visit():
            await self._redis.zadd(f"{self._queue}:webhooks", {task_id: due_ms})

    async def settle(self, task_id: str) -> None:
        """Delivered, or given up."""
        async with self._visit():
            await self._redis.zrem(f"{self._queue}:webhooks", task_id)
            await self._redis.unlink(self._letter(task_id))

    def _letter(self, task_id: str) -> str:
        return f"{self._queue}:webhook:{task_id}"

    def _visit(self) -> AbstractAsyncContextManager[None]:
        return bounded(self._timeout_seconds)
