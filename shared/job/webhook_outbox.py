"""Keeps webhooks in Redis until their receivers have them. Asyncio.

The script that ends a job adds its webhook (`close` in common.lua), which outlives the job. Each
later step is one script on Redis' clock: `take`, then `write`, `retry` or `settle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from shared.job.scripts import AsyncLuaScripts
from shared.redis_access.client import bounded
from shared.settings import Settings

ROOM = "room"
"""The bound on all sends of one gateway."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that was taken, which is an attempt: `write` and `retry` do nothing if the webhook
    was taken again since. `attempt` counts from 1. `payload` is None until it is written.
    """

    task_id: str
    url: str
    host: str
    owner: str
    attempt: int
    payload: bytes | None

    @property
    def bounds(self) -> tuple[str, str, str]:
        """What has a bound on the number of sends at once: the gateway, the host, the owner."""
        return ROOM, f"host:{self.host}", f"owner:{self.owner}"


class WebhookOutbox:
    """Every method raises `StoreUnavailable` when Redis does not answer."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self._timeout_seconds = settings.redis_timeout_seconds
        self._lua = AsyncLuaScripts(
            client,
            settings,
            *("webhook_take", "webhook_write", "webhook_retry", "webhook_settle"),
        )

    async def take(
        self, lease_seconds: float, *, full: Sequence[str] = (), freed: Sequence[str] = ()
    ) -> Webhook | None:
        """Take a webhook that is due. It is due again after `lease_seconds` if nothing else is
        done.

        A webhook whose gateway, host or owner is at its limit (`full`) is parked. A send that ends
        (`freed`: one limit for each) makes one parked webhook due again; so do some seconds
        (gateway) or about a minute (host, owner). A webhook that is not written yet is taken all
        the same. None if nothing is due.
        """
        found: Any = b"more"
        while found == b"more":
            async with self._visit():
                found = await self._lua.run(
                    "webhook_take",
                    lease_ms=int(lease_seconds * 1000),
                    freed=list(freed),
                    full=list(full),
                )
            freed = ()
        if not found:
            return None
        task_id, url, host, owner, attempt, payload = found
        return Webhook(
            task_id.decode(), url.decode(), host.decode(), owner.decode(), attempt, payload
        )

    async def write(self, webhook: Webhook, payload: bytes) -> None:
        """Keep the text that every try sends. The webhook is due at once; its attempts begin."""
        async with self._visit():
            await self._lua.run(
                "webhook_write",
                id=webhook.task_id,
                attempt=webhook.attempt,
                payload=payload.decode(),
            )

    async def retry(self, webhook: Webhook, pause_seconds: float) -> None:
        """The attempt has failed; the next may begin after the pause."""
        pause_ms = int(pause_seconds * 1000)
        async with self._visit():
            await self._lua.run(
                "webhook_retry", id=webhook.task_id, attempt=webhook.attempt, pause_ms=pause_ms
            )

    async def settle(self, webhook: Webhook) -> None:
        """The webhook was delivered or given up."""
        async with self._visit():
            await self._lua.run("webhook_settle", id=webhook.task_id)

    def _visit(self) -> AbstractAsyncContextManager[None]:
        return bounded(self._timeout_seconds)
