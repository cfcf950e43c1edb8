"""Owns how the gateway's background tasks end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

RETRY_SECONDS = 1.0


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done. Once is not always enough: a cancellation that comes in
    the moment a time-out or a connection attempt inside the task ends can be swallowed by it."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _done, pending = await asyncio.wait(pending, timeout=RETRY_SECONDS)
