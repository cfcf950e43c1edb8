"""Of redis-py, and of what else speaks with Redis through it."""

from __future__ import annotations

from typing import Any

import redis.connection

from tests.support.borrowed.base import Borrowed, Name

ASYNC = "redis.asyncio.connection"
SENTINEL = "redis.asyncio.sentinel"


def shares_its_errors(parser: Any) -> bool:
    """Whether a parser looks errors up in the very dictionary that we add ours to."""
    return parser.EXCEPTION_CLASSES is redis.connection.DefaultParser.EXCEPTION_CLASSES


def leaves_waiting_to_others(pool: Any) -> bool:
    """Whether Sentinel's pool hands connections out as the class behind it does."""
    return "get_connection" not in vars(pool)


BORROWED = [
    Borrowed(
        "redis",
        "shared/redis_access",
        "a Redis that refuses writes counts as unavailable, for both clients and for kombu",
        [
            Name(
                "redis._parsers.base:BaseParser.parse_error",
                says="cls.EXCEPTION_CLASSES[error_code]",
            ),
            Name(f"{ASYNC}:DefaultParser", holds=shares_its_errors),
            Name("redis._parsers:_AsyncRESP3Parser", holds=shares_its_errors),
            Name("redis._parsers:_RESP3Parser", holds=shares_its_errors),
        ],
    ),
    Borrowed(
        "redis",
        "shared/redis_access",
        "a gateway's connections to the primary that Sentinel names are bounded and waited for",
        [
            Name(f"{SENTINEL}:SentinelConnectionPool.__init__", says="super().__init__(**kwargs)"),
            Name(f"{SENTINEL}:SentinelConnectionPool.__init__", says="self.sentinel_manager = "),
            Name(f"{SENTINEL}:SentinelConnectionPool", holds=leaves_waiting_to_others),
            Name(f"{ASYNC}:BlockingConnectionPool", takes="max_connections timeout ..."),
            Name(f"{SENTINEL}:Sentinel.aclose", takes=""),
            Name(
                f"{SENTINEL}:Sentinel.master_for",
                takes="service_name redis_class connection_pool_class ...",
            ),
        ],
    ),
    Borrowed(
        "redis",
        "shared/job/scripts.py",
        "a script runs in one round trip with plain commands, and is loaded where it is not known",
        [
            Name("redis.commands.core:Script.__init__", says="self.sha = "),
            Name("redis.commands.core:AsyncScript.__init__", says="self.sha = "),
            Name("redis.commands.core:Script.__init__", says="self.script = script"),
            Name("redis.commands.core:AsyncScript.__init__", says="self.script = script"),
        ],
    ),
    Borrowed(
        "limits",
        "api/rate_limit.py",
        "the rate limiter uses our connections, so that it follows Sentinel's primary, too",
        [
            Name("limits.aio.storage:RedisStorage", takes="uri implementation key_prefix ..."),
            Name(
                "limits.aio.storage.redis.redispy:RedispyBridge.use_basic",
                says='options.pop("connection_pool", None)',
            ),
        ],
    ),
]
