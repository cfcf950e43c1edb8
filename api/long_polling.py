"""Holds a response until its job has ended: `?wait=` and `Prefer: wait=`."""

from __future__ import annotations

import asyncio
import re
from contextlib import nullcontext

from fastapi import Request

from api.http_metrics import mark_long_poll
from api.notifications import Watch
from api.services import services_of
from shared.job.record import JobRecord

MAX_WAIT_SECONDS = 60.0
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?=$|[,;\s])", re.IGNORECASE)


def preferred_wait(request: Request) -> float:
    """Seconds of the `Prefer: wait=N` header (RFC 7240), `MAX_WAIT_SECONDS` at most; 0 without."""
    found = _PREFER_WAIT.search(request.headers.get("prefer", ""))
    return min(float(found.group(1)), MAX_WAIT_SECONDS) if found else 0.0


async def read_when_ended(
    request: Request,
    task_id: str,
    seconds: float,
    *,
    owner: str | None = None,
    new_job: Watch | None = None,
) -> tuple[JobRecord, memoryview | None] | None:
    """Read a job once it has ended, or as it is when the time is up. If `owner` is given, does not
    wait for another owner's job.

    `new_job`: a watch from before the job was made. It has missed nothing, so the job is not read
    before it wakes.
    """
    mark_long_poll(request)
    services = services_of(request)
    store, notifier = services.store, services.notifier
    seconds = min(seconds, MAX_WAIT_SECONDS)
    deadline = asyncio.get_running_loop().time() + seconds
    watching = nullcontext(new_job) if new_job else notifier.watch(task_id, end_only=True)
    with watching as watch:
        if new_job and not notifier.draining:
            await watch.wait(seconds)
        while True:
            found = await store.read(task_id)
            left = deadline - asyncio.get_running_loop().time()
            if found is None or found[0].state.terminal or notifier.draining or left <= 0:
                return found
            if owner is not None and found[0].owner != owner:
                return found
            await watch.wait(left)
