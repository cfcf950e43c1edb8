"""Owns answers that are held until a job has ended: `?wait=` and `Prefer: wait=`."""

from __future__ import annotations

import asyncio
import re
from contextlib import nullcontext

from fastapi import Request

from api.http_metrics import mark_held
from api.notifications import Notifier, Watch
from shared.job.gateway_store import GatewayStore
from shared.job.record import JobRecord

MAX_WAIT_SECONDS = 60.0
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?=$|[,;\s])", re.IGNORECASE)


def preferred_wait(request: Request) -> float:
    """Seconds of the `Prefer: wait=N` header (RFC 7240), capped; 0 without one."""
    found = _PREFER_WAIT.search(request.headers.get("prefer", ""))
    return min(float(found.group(1)), MAX_WAIT_SECONDS) if found else 0.0


async def read_when_ended(
    request: Request,
    task_id: str,
    seconds: float,
    *,
    owner: str | None = None,
    begun: Watch | None = None,
) -> tuple[JobRecord, memoryview | None] | None:
    """Read a job once it has ended, or as it stands when the time is up; at once if it is not
    the `owner`'s. `begun`: a watch from before the job was there, so that a first look at it can be
    spared."""
    mark_held(request)
    store: GatewayStore = request.app.state.store
    notifier: Notifier = request.app.state.notifier
    deadline = asyncio.get_running_loop().time() + min(seconds, MAX_WAIT_SECONDS)
    watching = nullcontext(begun) if begun else notifier.watch(task_id, end_only=True)
    with watching as watch:
        if begun and not notifier.draining:
            await watch.wait(min(seconds, MAX_WAIT_SECONDS))
        while True:
            found = await store.read(task_id)
            left = deadline - asyncio.get_running_loop().time()
            if found is None or found[0].state.terminal or notifier.draining or left <= 0:
                return found
            if owner is not None and found[0].owner != owner:
                return found
            await watch.wait(left)
