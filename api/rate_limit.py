"""Owns how often a client may submit. The library `limits` counts, in Redis, for all gateways."""

from __future__ import annotations

import time

from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from shared.errors import TooManyRequests, UploadTooLarge
from shared.redis_access.client import bounded, connect_async
from shared.settings import Settings


class RateLimiter:
    def __init__(self, settings: Settings) -> None:
        self._limits: list[RateLimitItem] = (
            parse_many(settings.rate_limit) if settings.rate_limit else []
        )
        if not self._limits:
            return
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = connect_async(settings.redis_url)
        storage = RedisStorage(
            # Only says which library is used; the pool knows where Redis is, Sentinel included.
            "async+redis://",
            connection_pool=self._redis.connection_pool,  # type: ignore[arg-type]
            implementation="redispy",
            key_prefix=f"{settings.yolo_queue}:rate",
        )
        self._window = MovingWindowRateLimiter(storage)

    async def check(self, client: str) -> None:
        """Count one submission. Raises `TooManyRequests` when there were too many."""
        await self._count(client, 1)

    async def check_rest(self, client: str, images: int) -> None:
        """Count the other images of a batch, the first of which was counted by `check`. Raises
        `TooManyRequests`, or `UploadTooLarge` for a batch that no waiting would make acceptable."""
        for limit in self._limits:
            if images > limit.amount:
                raise UploadTooLarge(
                    f"{images} images at once are more than {limit} allows; send fewer at a time."
                )
        if images > 1:
            await self._count(client, images - 1)

    async def _count(self, client: str, images: int) -> None:
        for limit in self._limits:
            async with bounded(self._timeout_seconds):
                if await self._window.hit(limit, client, cost=images):
                    continue
                stats = await self._window.get_window_stats(limit, client)
            raise TooManyRequests(
                f"More than {limit} from this client.",
                retry_after_seconds=max(1.0, stats.reset_time - time.time()),
            )

    async def close(self) -> None:
        if self._limits:
            await self._redis.aclose()
