"""Makes Redis clients: timeouts, retries and fail-over in one place. URLs are read in url.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from pydantic import SecretStr
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from shared.errors import StoreUnavailable
from shared.redis_access.url import RedisAddress, parse


class WritesRefused(redis.ConnectionError):
    """The server answers but refuses writes. This service treats it as unavailable."""


# Teaches redis-py, and so kombu, which replies mean this: the disk is full (MISCONF); the server
# has become a replica (READONLY, or UNBLOCKED for clients that were waiting at that moment); it is
# cut off from its replicas and about to be replaced, so that writes would be lost (NOREPLICAS).
DefaultParser.EXCEPTION_CLASSES |= dict.fromkeys(
    ("MISCONF", "READONLY", "UNBLOCKED", "NOREPLICAS"), WritesRefused
)

UNAVAILABLE = (
    redis.BusyLoadingError,
    redis.ConnectionError,
    redis.OutOfMemoryError,
    redis.TimeoutError,
    OSError,
)
"""What redis-py raises while the server is away, paused, loading its file, full or refuses
writes."""

MAX_CONNECTIONS = 64
"""From one gateway to Redis."""

CONNECT_SECONDS = 5.0
"""Of a gateway's connection; a subscription that reconnects has no other bound."""

SENTINEL_SECONDS = 0.4
"""How long one sentinel may take to name the primary. They are asked in turn: three must fit into
the time in which the gateway answers 503. One that answers is asked first from then on."""


def connect(url: SecretStr, *, timeout_seconds: float) -> redis.Redis:
    """A blocking client. A command fails after `timeout_seconds`. Opens no connection yet."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        # A connection that a restarted server closed is replaced once, at once. Whether to wait
        # longer is for the caller to decide.
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [redis.ConnectionError],
    }
    address = parse(url.get_secret_value())
    if not address.service:
        return redis.Redis.from_url(url.get_secret_value(), **options)
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


def connect_async(url: SecretStr) -> redis.asyncio.Redis:
    """`connect` for asyncio, but without a timeout for each command: the caller bounds a whole
    visit to Redis, retries and reconnects included (`bounded`). With a timeout, redis-py would make
    a task for each command."""
    options: dict[str, Any] = {
        # Redis does one thing at a time. More requests wait here for a connection.
        "max_connections": MAX_CONNECTIONS,
        "timeout": None,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": AsyncRetry(NoBackoff(), 1),
        "retry_on_error": [redis.ConnectionError],
    }
    address = parse(url.get_secret_value())
    if not address.service:
        secret = url.get_secret_value()
        pool = redis.asyncio.BlockingConnectionPool.from_url(secret, **options)
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
    """Connections to the current primary, with a bound that callers wait at, as without
    Sentinel."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Options for connections to the sentinels themselves; Celery and Flower use them too."""
    return {
        # None: redis-py's own three retries with pauses would delay asking the next sentinel.
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
    """Bound a visit to Redis, retries and reconnects included.

    Raises `StoreUnavailable` if Redis does not answer in time, is full or refuses writes.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, *UNAVAILABLE) as error:
        # A local variable of redis-py refers to the error: a reference cycle around everything that
        # the frames on the way hold, which may be an upload.
        raise unavailable(error) from error.with_traceback(None)


def raise_refusal(replies: list[Any]) -> None:
    """Raise the first error among a pipeline's replies, if there is one.

    For `execute(raise_on_error=False)`. The error that redis-py raises by itself has the whole
    command in its message, which for an upload of 3.5 MB takes 0.5 s and 60 MB to write; and it
    refers to itself, so that the upload stays in memory until the garbage collector runs.
    """
    refusals = [r.with_traceback(None) for r in replies if isinstance(r, redis.RedisError)]
    if refusals:
        replies.clear()
        raise refusals.pop(0)


def unavailable(error: Exception) -> StoreUnavailable:
    """The project's error for one of `UNAVAILABLE`, in words for a client."""
    if isinstance(error, redis.OutOfMemoryError):
        return StoreUnavailable(
            "Redis has no memory left; try again later.", retry_after_seconds=10
        )
    if isinstance(error, WritesRefused):
        return StoreUnavailable(
            "Redis refuses writes at the moment (its log says why); try again later.",
            retry_after_seconds=10,
        )
    return StoreUnavailable("Redis does not answer; try again later.", retry_after_seconds=2)
