"""Limits how many images an owner may submit, counted in Redis for all gateways together."""

from __future__ import annotations

import time

from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from shared.errors import TooManyRequests, UploadTooLarge
from shared.job.keys import Keys
from shared.redis_access.client import bounded, connect_async
from shared.settings import Settings


class RateLimiter:
    """Without RATE_LIMIT it allows everything and needs no Redis."""

    def __init__(self, settings: Settings) -> None:
        self._limits: list[RateLimitItem] = (
            parse_many(settings.rate_limit) if settings.rate_limit else []
        )
        if not self._limits:
            return
        self._timeout_seconds = settings.redis_timeout_seconds
        self._redis = connect_async(settings.redis_url)
        storage = RedisStorage(
            # Only names the library to use. The pool knows the address of Redis, Sentinel or not.
            "async+redis://",
            connection_pool=self._redis.connection_pool,  # type: ignore[arg-type]
            implementation="redispy",
            key_prefix=Keys(settings.yolo_queue).rate,
        )
        self._window = MovingWindowRateLimiter(storage)

    async def check(self, owner: str) -> None:
        """Count one image. Raises `TooManyRequests`."""
        await self._count(owner, 1)

    async def check_rest(self, owner: str, images: int) -> None:
        """Count the images of a batch after the first, which `check` has counted.

        Raises `TooManyRequests`, or `UploadTooLarge` for a batch that is above the limit by itself.
        """
        for limit in self._limits:
            if images > limit.amount:
                raise UploadTooLarge(
                    f"A batch of {images} exceeds the rate limit of {limit}; send fewer at a time."
                )
        if images > 1:
            await self._count(owner, images - 1)

    async def _count(self, owner: str, images: int) -> None:
        for limit in self._limits:
            async with bounded(self._timeout_seconds):
                if await self._window.hit(limit, owner, cost=images):
                    continue
                stats = await self._window.get_window_stats(limit, owner)
            raise TooManyRequests(
                f"You have exceeded the rate limit of {limit}.",
                retry_after_seconds=max(1.0, stats.reset_time - time.time()),
            )

    async def close(self) -> None:
        if self._limits:
            await self._redis.aclose()
