"""Owns the single checks of `yolo-queue doctor`; each gives findings and raises nothing."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version

import httpx
import redis

from client import ApiError, Client, Unavailable
from shared.redis_client import UNAVAILABLE, connect
from shared.settings import Settings

MIN_REDIS = (6, 2)
MAX_SKEW_SECONDS = 5.0
LOW_MEMORY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    ok: bool
    found: str
    advice: str = ""


def check_environment() -> Iterator[Finding]:
    running = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), running, "Use Python 3.11 or newer.")
    try:
        wanted = requires("yolo-queue") or []
    except PackageNotFoundError:
        yield Finding(
            "packages", False, "yolo-queue is not installed", "Install it: pip install -e '.[all]'"
        )
        return
    versions, old = [], []
    for requirement in wanted:
        # e.g. `celery[redis]>=5.7 ; extra == "worker"`
        match = re.match(r"([\w.-]+)(?:\[[^]]*])?\s*>=\s*([\d.]+)", requirement)
        if match is None or 'extra == "dev"' in requirement or 'extra == "all"' in requirement:
            continue
        name, least = match.groups()
        try:
            have = version(name)
        except PackageNotFoundError:
            continue  # a gateway needs no worker's packages, and the other way round
        versions.append(f"{name} {have}")
        if _numbers(have) < _numbers(least):
            old.append(f"{name}>={least}")
    yield Finding(
        "packages",
        not old,
        ", ".join(dict.fromkeys(old if old else versions)),
        "These are too old: install with `--constraint constraints.txt`.",
    )


def check_redis(settings: Settings) -> Iterator[Finding]:
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
        _numbers(number) >= MIN_REDIS,
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
    yield _clock("redis clock", moment[0] + moment[1] / 1e6 - started)
    client.close()


def check_service(url: str, api_key: str) -> Iterator[Finding]:
    try:
        with Client(url, api_key or None, retry_seconds=0) as client:
            answer = httpx.get(url.rstrip("/") + "/health", timeout=5)
            answer.raise_for_status()
            yield Finding("gateway", True, f"{url} answers")
            if date := answer.headers.get("date"):
                # The header has whole seconds.
                yield _clock(
                    "gateway clock", parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
                )
            yield from _check_workers(client)
    except (httpx.HTTPError, ValueError) as error:
        yield Finding(
            "gateway", False, f"{url}: {error}", "Start the service (`yolo-queue up`) or set --url."
        )
    except ApiError as error:
        yield Finding(
            "gateway",
            False,
            str(error),
            "Give the key with --api-key or YOLO_QUEUE_API_KEY."
            if error.code == "not_authenticated"
            else "See the gateway's log; the checks of Redis above may say why.",
        )


def _check_workers(client: Client) -> Iterator[Finding]:
    queue = client.queue()
    ready, processes = queue.ready_processes, sum(w.processes for w in queue.workers)
    yield Finding(
        "workers",
        0 < ready == processes,
        f"{len(queue.workers)} workers, {ready} of {processes} processes ready",
        "Start one: `celery -A worker.app worker`; it needs the gateway's REDIS_URL and YOLO_QUEUE."
        if not processes
        else "Some have not loaded their model or do not consume: see the worker's log.",
    )
    rate = f", {queue.drain_rate:.1f} jobs/s" if queue.drain_rate else ""
    yield Finding("queue", True, f"{queue.depth} waiting, {queue.in_flight} in flight{rate}")
    yield Finding(
        "dead letters",
        queue.dead_letters == 0,
        str(queue.dead_letters),
        "Jobs were given up: `yolo-queue dead list` shows them, `dead retry` tries again.",
    )
    models = sorted({worker.model for worker in queue.workers})
    if len(models) > 1:
        yield Finding(
            "model",
            False,
            ", ".join(models),
            "Workers of one queue serve different models: give each model a YOLO_QUEUE of its own.",
        )
        return
    try:
        served = client.model()
    except Unavailable as error:
        yield Finding("model", False, str(error), "Wait for a worker to load it; see its log.")
    else:
        yield Finding("model", True, f"{served.model}, {served.task}, {len(served.names)} classes")


def _clock(name: str, skew_seconds: float) -> Finding:
    return Finding(
        name,
        abs(skew_seconds) <= MAX_SKEW_SECONDS,
        f"{skew_seconds:+.1f} s from this machine's",
        "Set the clocks by NTP: ages, time limits and expiry go by them.",
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
