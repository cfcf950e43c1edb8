"""Checks of this machine and of a service for `yolo-queue doctor`. They raise nothing.

The checks of Redis are in yolo_queue/server/redis_checks.py: they need the server's settings.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version

import httpx

from yolo_queue import ApiError, Client, Unavailable

MAX_SKEW_SECONDS = 5.0


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
        if numbers(have) < numbers(least):
            old.append(f"{name}>={least}")
    yield Finding(
        "packages",
        not old,
        ", ".join(dict.fromkeys(old if old else versions)),
        "These are too old: install with `--constraint constraints.txt`.",
    )


def check_service(url: str, api_key: str) -> Iterator[Finding]:
    try:
        with Client(url, api_key or None, retry_seconds=0) as client:
            answer = httpx.get(url.rstrip("/") + "/health", timeout=5)
            answer.raise_for_status()
            yield Finding("gateway", True, f"{url} answers")
            if date := answer.headers.get("date"):
                # The header has whole seconds.
                yield clock(
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


def clock(name: str, skew_seconds: float) -> Finding:
    return Finding(
        name,
        abs(skew_seconds) <= MAX_SKEW_SECONDS,
        f"{skew_seconds:+.1f} s from this machine's",
        "Set the clocks by NTP: ages, time limits and expiry go by them.",
    )


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
