"""Owns how Redis is reached: one place for timeouts, retries and URL forms."""

from __future__ import annotations

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import StoreUnavailable

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, OSError)
"""What redis-py raises while the server is away, paused or loading its file."""

MAX_CONNECTIONS = 64
"""Of one gateway to one Redis."""


def connect(url: str, *, timeout_seconds: float) -> redis.Redis:
    """A blocking client. Opens no connection yet. Fails within `timeout_seconds` a command."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        # A connection that a restarted server closed is replaced once, at once; anything longer
        # is for the caller to decide.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError],
    )


def connect_async(url: str, *, timeout_seconds: float) -> redis.asyncio.Redis:
    """The asyncio twin of `connect`."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        # However many requests there are, Redis does one thing at a time; the rest wait here.
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=AsyncRetry(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError],
    )
    return redis.asyncio.Redis.from_pool(pool)


def unavailable(error: Exception) -> StoreUnavailable:
    """The project's error for one of `UNAVAILABLE` or for a server out of memory."""
    if isinstance(error, redis.OutOfMemoryError):
        return StoreUnavailable(
            "Redis has no memory left; try again later.", retry_after_seconds=10
        )
    return StoreUnavailable("Redis does not answer; try again later.", retry_after_seconds=2)
