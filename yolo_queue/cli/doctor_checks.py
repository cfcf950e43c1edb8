"""Checks this machine and a service for `yolo-queue doctor`.

The checks of Redis are in yolo_queue/server/doctor_redis.py, since they need the server's settings.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import httpx

from yolo_queue import ApiError, Client, ModelState, NotAuthenticated

MAX_SKEW_SECONDS = 5.0
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
"""Of the checkout, where there is one."""

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*])?([^;]*)")
"""Name and bounds of a requirement such as `celery[redis]>=5.7,<5.8`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` says what to do unless it is `ok`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def check_environment() -> Iterator[Finding]:
    """Python, and the versions of the installed packages that yolo-queue names."""
    running = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), running, "Use Python 3.11 or newer.")
    installed, unmet = {}, []
    for requirement in dict.fromkeys(_requirements()):
        name, bounds = _REQUIREMENT.findall(requirement)[0]
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue  # a gateway needs no worker's packages, and the other way round
        if not _within(installed[name], bounds):
            unmet.append(requirement)
    yield Finding(
        "packages",
        not unmet,
        ", ".join(f"{name} {number}" for name, number in installed.items()),
        f"Install versions that fit: pip install {shlex.join(unmet)}",
    )


def _requirements() -> list[str]:
    """Those of the client; in a checkout those of the server as well."""
    if find_spec("yolo_queue.server") is None:
        return requires("yolo-queue") or []
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    groups = project["dependency-groups"]

    def members(group: str) -> Iterator[str]:
        for member in groups[group]:
            if isinstance(member, str):
                yield member
            else:
                yield from members(member["include-group"])

    return [*project["project"]["dependencies"], *members("up"), *members("otel")]


def _within(number: str, bounds: str) -> bool:
    return all(
        numbers(number) >= numbers(bound) if operator == ">=" else numbers(number) < numbers(bound)
        for operator, bound in re.findall(r"(>=|<)([\d.]+)", bounds)
    )


def check_service(url: str, api_key: str) -> Iterator[Finding]:
    """The gateway, its clock, its workers and its queue."""
    try:
        with Client(url, api_key or None, retry_seconds=0) as client:
            answer = httpx.get(url.rstrip("/") + "/health", timeout=5)
            answer.raise_for_status()
            yield Finding("gateway", True, f"{url} answers")
            if date := answer.headers.get("date"):
                # The header has whole seconds.
                gateway_time = parsedate_to_datetime(date).timestamp() + 0.5
                yield check_clock("gateway clock", gateway_time - time.time())
            yield from _check_workers(client)
    except (httpx.HTTPError, ValueError) as error:
        advice = "Start the service (`make run` in its checkout), or give its address with --url."
        yield Finding("gateway", False, f"{url}: {error}", advice)
    except ApiError as error:
        advice = "See the gateway's log; the checks of Redis above may say why."
        if isinstance(error, NotAuthenticated):
            advice = "Give your key with --api-key or YOLO_QUEUE_API_KEY."
        yield Finding("gateway", False, str(error), advice)


def _check_workers(client: Client) -> Iterator[Finding]:
    queue = client.queue()
    ready, processes = queue.ready_processes, sum(w.processes for w in queue.workers)
    yield Finding(
        "workers",
        0 < ready == processes,
        f"{len(queue.workers)} workers, {ready} of {processes} processes ready",
        "Some have not loaded their models or do not take jobs: see the worker's log."
        if processes
        else "Start `celery -A worker.app worker` with the gateway's REDIS_URL and YOLO_QUEUE.",
    )
    rate = f", {queue.drain_rate:.1f} jobs/s" if queue.drain_rate else ""
    yield Finding("queue", True, f"{queue.depth} waiting, {queue.in_flight} in flight{rate}")
    yield Finding(
        "dead letters",
        queue.dead_letters == 0,
        str(queue.dead_letters),
        "Jobs failed for good: in the server's checkout, `yolo-queue dead list` shows them and "
        "`yolo-queue dead retry ID` submits one again.",
    )
    for model in client.models():
        yield _check_model(model)


def _check_model(model: ModelState) -> Finding:
    versions = ", ".join(
        f"{version.short} in {version.ready_processes} processes ({', '.join(version.runtimes)})"
        for version in model.versions
        if version.workers
    )
    found = f"{model.task}, {len(model.names)} classes, {versions}"
    if not versions:
        found = f"no worker serves it; {model.depth} jobs wait for it"
    return Finding(
        f"model {model.model}",
        # One that nothing waits for was taken away on purpose.
        bool(versions) or not (model.depth or model.default),
        found,
        f"Start a worker with YOLO_MODELS={model.model}=WEIGHTS. If the name is wrong, set the "
        "same DEFAULT_MODEL, YOLO_MODELS or YOLO_MODEL for gateway and workers.",
    )


def check_clock(name: str, skew_seconds: float) -> Finding:
    """`skew_seconds`: how far that clock is ahead of this machine's."""
    return Finding(
        name,
        abs(skew_seconds) <= MAX_SKEW_SECONDS,
        f"{skew_seconds:+.1f} s from this machine's",
        "Synchronise the clocks (NTP): time limits, expiry and the ages shown depend on them.",
    )


def numbers(version_text: str) -> tuple[int, ...]:
    """`8.4.190` as (8, 4, 190), to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version_text)[:3])
