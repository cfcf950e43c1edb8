"""The worker's health check: whether the worker of this container takes jobs, not merely runs.

    python -m worker.health [--name NODE]

It reads the report that the worker's parent writes with every heartbeat (celery_ext/heartbeat.py).
Exit status 0: it says how many processes are ready. 1: it gives the reason in one line.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import StartupError
from shared.job.keys import HEARTBEAT_SECONDS, Keys
from shared.redis_access.client import UNAVAILABLE, connect
from shared.settings import Settings, load_settings

STALE_SECONDS = 3 * HEARTBEAT_SECONDS + 1
"""After so long without a report, the other workers count this one as absent (heartbeat.lua)."""

REDIS_SECONDS = 3


class Unhealthy(Exception):
    """The reason in one line. It reaches neither HTTP nor a job, so it has no code."""


@dataclass(frozen=True, slots=True)
class Report:
    """The last report of a worker, and its age. `worker` is `node@host/pid`."""

    worker: str
    age_seconds: float
    fields: dict[str, Any]


def check(settings: Settings, *, node: str = "") -> str:
    """Check the workers of this machine, or the one called `node` (celery's `--hostname`).

    Returns their state in words. Raises `Unhealthy` if there is none or one does not take jobs.
    """
    try:
        own = [report for report in read_reports(settings) if is_own(report.worker, node)]
    except UNAVAILABLE as error:
        # deploy/kubernetes tells this from other reasons by its words: no restart would help.
        raise Unhealthy(f"Redis does not answer: {error}") from error
    if not own:
        raise Unhealthy("no report: the worker is starting, stopping, or gone")
    return "; ".join(judge(report) for report in own)


def judge(report: Report) -> str:
    """The state of one worker in words. Raises `Unhealthy` if it does not take jobs."""
    fields = report.fields
    if report.age_seconds > STALE_SECONDS:
        raise Unhealthy(f"{report.worker}: silent for {report.age_seconds:.0f} s")
    if not fields["loaded"]:
        raise Unhealthy(f"{report.worker}: no process has loaded its model yet")
    if not fields["consuming"]:
        raise Unhealthy(f"{report.worker}: answers, but does not take jobs from the queue")
    return f"{report.worker}: {fields['ready']} of {fields['processes']} processes ready"


def read_reports(settings: Settings) -> Iterator[Report]:
    """The last report of every worker of this queue."""
    keys = Keys(settings.yolo_queue)
    with connect(settings.redis_url, timeout_seconds=REDIS_SECONDS) as redis:
        answer: Any = redis.pipeline(transaction=False)
        answer.time().hgetall(keys.workers)
        answer.zrange(keys.workers_seen, 0, -1, withscores=True)
        (seconds, micros), reports, seen = answer.execute()
    now_ms = seconds * 1000 + micros / 1000
    seen_ms = dict(seen)
    for worker, text in reports.items():
        age_seconds = (now_ms - seen_ms.get(worker, 0)) / 1000
        yield Report(worker.decode(), age_seconds, json.loads(text))


def is_own(worker: str, node: str, *, proc: Path = Path("/proc")) -> bool:
    """Whether a report comes from a process of this container. A container that was replaced may
    have left a report under the same host name."""
    name, _, pid = worker.rpartition("/")
    if not (proc / pid).exists():
        return False
    return name == node if node else name.rpartition("@")[2] == socket.gethostname()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.health")
    parser.add_argument("--name", default="", help="the worker's --hostname, if it was given one")
    try:
        print(check(load_settings(), node=parser.parse_args().name))
    except (Unhealthy, StartupError) as error:
        print(f"unhealthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
