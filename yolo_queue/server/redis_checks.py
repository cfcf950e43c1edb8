"""Checks of Redis for `yolo-queue doctor`: version, durability, eviction, memory, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis

from shared.errors import InvalidSettings as InvalidSettings
from shared.redis_access.client import UNAVAILABLE, connect
from shared.settings import load_settings
from yolo_queue.cli.doctor_checks import Finding, clock, numbers

MIN_REDIS = (6, 2)
LOW_MEMORY_BYTES = 256 * 1024 * 1024


def check_redis() -> Iterator[Finding]:
    """Of the Redis in the settings. Raises `InvalidSettings`."""
    settings = load_settings()
    where = settings.masked_redis_url()
    try:
        client = connect(settings.redis_url, timeout_seconds=3)
        started = time.time()
        info = client.info()
        moment = client.time()
    except (*UNAVAILABLE, redis.RedisError, ValueError) as error:
        yield Finding(
            "redis",
            False,
            f"{where}: {error}",
            "Start it, or set REDIS_URL; `yolo-queue up` brings one along.",
        )
        return
    name = "valkey" if "valkey_version" in info else "redis"
    number = str(info.get("valkey_version") or info["redis_version"])
    yield Finding(
        "redis",
        numbers(number) >= MIN_REDIS,
        f"{where}: {name} {number}",
        f"Version {'.'.join(map(str, MIN_REDIS))} or newer is needed.",
    )
    yield Finding(
        "redis file",
        bool(info.get("aof_enabled")),
        f"append-only file {'on' if info.get('aof_enabled') else 'off'}",
        "A restart of this Redis loses accepted jobs: set `appendonly yes`.",
    )
    policy = str(info.get("maxmemory_policy", "unknown"))
    yield Finding(
        "redis policy",
        policy == "noeviction",
        policy,
        "Redis may throw jobs away when memory is short: set `maxmemory-policy noeviction`.",
    )
    limit, used = int(info.get("maxmemory", 0)), int(info["used_memory"])
    roomy = limit > 0 and limit * settings.redis_memory_limit_ratio - used > LOW_MEMORY_BYTES
    yield Finding(
        "redis memory",
        roomy,
        f"{_mib(used)} used of {_mib(limit) if limit else 'no limit'}",
        "Set `maxmemory`, so that a full queue is refused before the machine is out of memory."
        if not limit
        else f"Less than {_mib(LOW_MEMORY_BYTES)} is left for uploads: raise `maxmemory` or wait.",
    )
    yield clock("redis clock", moment[0] + moment[1] / 1e6 - started)
    client.close()


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
