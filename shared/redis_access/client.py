"""Owns how Redis is reached: one place for timeouts, retries and fail-over. URLs: redis_url.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from shared.errors import StoreUnavailable
from shared.redis_access.url import RedisAddress, parse


class WritesRefused(redis.ConnectionError):
    """The server is there and takes nothing, which for this service is as good as away."""


# Teaches redis-py, and kombu by it, which replies say so: its disk is full (MISCONF); it is a
# replica by now (READONLY, and UNBLOCKED to those who were waiting at that moment); it is cut off
# from its replicas and about to be replaced, so that what it took would be lost (NOREPLICAS).
DefaultParser.EXCEPTION_CLASSES |= dict.fromkeys(
    ("MISCONF", "READONLY", "UNBLOCKED", "NOREPLICAS"), WritesRefused
)

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, OSError)
"""What redis-py raises while the server is away, paused, loading its file or refusing to write."""

MAX_CONNECTIONS = 64
"""Of one gateway to one Redis."""

CONNECT_SECONDS = 5.0
"""Of a gateway's connection; a subscription that reconnects has no other bound."""

SENTINEL_SECONDS = 0.4
"""How long one sentinel may take to say who is primary. They are asked in turn, so that three fit
into the time in which the gateway answers 503; one that answers is asked first from then on."""


def connect(url: str, *, timeout_seconds: float) -> redis.Redis:
    """A blocking client. Opens no connection yet. Fails within `timeout_seconds` a command."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        # A connection that a restarted server closed is replaced once, at once; anything longer
        # is for the caller to decide.
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [redis.ConnectionError],
    }
    address = parse(url)
    if not address.service:
        return redis.Redis.from_url(url, **options)
    sentinel: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(address.nodes),
        sentinel_kwargs=sentinel_options(address),
    )
    client: redis.Redis = sentinel.master_for(
        address.service,
        redis.Redis,
        **_server_options(address),
        **options,
    )
    return client


def connect_async(url: str) -> redis.asyncio.Redis:
    """The asyncio twin of `connect`, without a timeout a command: who uses it bounds each visit to
    Redis (`asyncio.timeout`), retries and reconnects included. redis-py would send each command
    from a task made for it."""
    options: dict[str, Any] = {
        # However many requests there are, Redis does one thing at a time; the rest wait here.
        "max_connections": MAX_CONNECTIONS,
        "timeout": None,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": AsyncRetry(NoBackoff(), 1),
        "retry_on_error": [redis.ConnectionError],
    }
    address = parse(url)
    if not address.service:
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, **options)
        return redis.asyncio.Redis.from_pool(pool)
    sentinel: Any = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(address.nodes),
        sentinel_kwargs=sentinel_options(address),
    )
    client: redis.asyncio.Redis = sentinel.master_for(
        address.service,
        redis.asyncio.Redis,
        connection_pool_class=BlockingSentinelPool,
        **_server_options(address),
        **options,
    )
    return client


class BlockingSentinelPool(
    redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool
):
    """Connections to the primary of the moment, bounded and waited for as without Sentinel."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """How the sentinels themselves are reached, by Celery and Flower too."""
    return {
        # None: redis-py's own three retries with pauses would hold up asking the next sentinel.
        "retry": None,
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        **address.sentinel_login,
        **_tls_options(address),
    }


def _server_options(address: RedisAddress) -> dict[str, Any]:
    return {"db": address.db, **address.login, **_tls_options(address)}


def _tls_options(address: RedisAddress) -> dict[str, Any]:
    return {} if address.tls is None else {"ssl": True, **address.tls}


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """A visit to Redis, retries and reconnects included, that takes so long at most.

    Raises `StoreUnavailable` if Redis does not answer in time or has no memory left.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, redis.OutOfMemoryError, *UNAVAILABLE) as error:
        # Where redis-py raises it, a local variable refers to it: a circle around all that the
        # frames on the way hold, which may be an upload.
        raise unavailable(error) from error.with_traceback(None)


def raise_refusal(replies: list[Any]) -> None:
    """Raise the first error among a pipeline's replies, if there is one.

    For `execute(raise_on_error=False)`: what redis-py raises by itself has the whole command in
    its message, which for an upload of 3.5 MB takes half a second and 60 MB to write, and refers to
    itself, so that the upload stays until the garbage collector comes.
    """
    refusals = [r.with_traceback(None) for r in replies if isinstance(r, redis.RedisError)]
    if refusals:
        replies.clear()
        raise refusals.pop(0)


def unavailable(error: Exception) -> StoreUnavailable:
    """The project's error for one of `UNAVAILABLE` or for a server out of memory."""
    if isinstance(error, redis.OutOfMemoryError):
        return StoreUnavailable(
            "Redis has no memory left; try again later.", retry_after_seconds=10
        )
    if isinstance(error, WritesRefused):
        return StoreUnavailable(
            "Redis takes no writes at this moment, its log says why; try again later.",
            retry_after_seconds=10,
        )
    return StoreUnavailable("Redis does not answer; try again later.", retry_after_seconds=2)
