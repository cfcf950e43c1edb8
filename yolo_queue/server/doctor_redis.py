"""Checks Redis for `yolo-queue doctor`: version, durability, eviction, memory, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis

from shared.errors import InvalidSettings as InvalidSettings
from shared.redis_access.client import UNAVAILABLE, connect
from shared.settings import load_settings
from yolo_queue.cli.doctor_checks import Finding, check_clock, numbers

MIN_REDIS = (6, 2)
LOW_MEMORY_BYTES = 256 << 20


def check_redis() -> Iterator[Finding]:
    """Check the Redis of the settings. Raises `InvalidSettings`."""
    settings = load_settings()
    url = settings.masked_redis_url()
    try:
        client = connect(settings.redis_url, timeout_seconds=3)
        started = time.time()
        info = client.info()
        seconds, microseconds = client.time()
        client.close()
    except (*UNAVAILABLE, redis.RedisError, ValueError) as error:
        advice = "Start it, or set REDIS_URL; `make run` starts one of its own."
        yield Finding("redis", False, f"{url}: {error}", advice)
        return
    name = "valkey" if "valkey_version" in info else "redis"
    number = str(info.get("valkey_version") or info["redis_version"])
    yield Finding(
        "redis",
        numbers(number) >= MIN_REDIS,
        f"{url}: {name} {number}",
        f"Install version {'.'.join(map(str, MIN_REDIS))} or newer.",
    )
    yield Finding(
        "redis file",
        bool(info.get("aof_enabled")),
        f"append-only file {'on' if info.get('aof_enabled') else 'off'}",
        "This Redis loses accepted jobs when it restarts: set `appendonly yes`.",
    )
    policy = str(info.get("maxmemory_policy", "unknown"))
    yield Finding(
        "redis policy",
        policy == "noeviction",
        policy,
        "This Redis may evict jobs when memory is short: set `maxmemory-policy noeviction`.",
    )
    limit, used = int(info.get("maxmemory", 0)), int(info["used_memory"])
    enough = limit > 0 and limit * settings.redis_memory_limit_ratio - used > LOW_MEMORY_BYTES
    yield Finding(
        "redis memory",
        enough,
        f"{_mib(used)} used of {_mib(limit) if limit else 'no limit'}",
        f"Less than {_mib(LOW_MEMORY_BYTES)} are left for uploads: raise `maxmemory` or wait."
        if limit
        else "Set `maxmemory`: uploads are then refused before the machine runs out of memory.",
    )
    yield check_clock("redis clock", seconds + microseconds / 1e6 - started)


def _mib(size: int) -> str:
    return f"{size >> 20:,} MiB"
