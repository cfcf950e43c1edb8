"""Owns answers that are held until a job has ended: `?wait=` and `Prefer: wait=`."""

from __future__ import annotations

import asyncio
import re

from fastapi import Request

from api.http_metrics import mark_held
from api.notifications import Notifier
from shared.job_intake import JobIntake
from shared.jobs import JobRecord

MAX_WAIT_SECONDS = 60.0
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,9})(?=$|[,;\s])", re.IGNORECASE)


def preferred_wait(request: Request) -> float:
    """Seconds of the `Prefer: wait=N` header (RFC 7240), capped; 0 without one."""
    found = _PREFER_WAIT.search(request.headers.get("prefer", ""))
    return min(float(found.group(1)), MAX_WAIT_SECONDS) if found else 0.0


async def read_when_ended(
    request: Request, task_id: str, seconds: float, *, owner: str | None = None
) -> tuple[JobRecord, bytes | None] | None:
    """Read a job once it has ended, or as it stands when the time is up; at once if it is not
    the `owner`'s."""
    mark_held(request)
    intake: JobIntake = request.app.state.intake
    notifier: Notifier = request.app.state.notifier
    deadline = asyncio.get_running_loop().time() + min(seconds, MAX_WAIT_SECONDS)
    with notifier.watch(task_id, end_only=True) as watch:
        while True:
            found = await intake.read(task_id)
            left = deadline - asyncio.get_running_loop().time()
            if found is None or found[0].state.terminal or notifier.draining or left <= 0:
                return found
            if owner is not None and found[0].owner != owner:
                return found
            await watch.wait(left)
