"""Runs the gateway's background tasks, restarts those that fail and says which ones are down."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

log = logging.getLogger("yolo_queue.api")

RECANCEL_SECONDS = 1.0
RESTART_SECONDS = 1.0


class BackgroundTasks:
    """Each task is a coroutine function that never returns.

    A gateway that has lost one of them still answers but does only part of its work, so a task that
    is down shows in `/ready` and in the metrics.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self.up: dict[str, bool] = {}
        """Whether each task is running, by name."""
        self.failures: Counter[str] = Counter()
        """How often each task has ended although nobody stopped it."""

    def run(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        """Run `function` from now until `stop`."""
        self.up[name] = True
        self._tasks.append(asyncio.create_task(self._supervise(name, function), name=name))

    async def stop(self) -> None:
        await end_tasks(self._tasks)

    async def _supervise(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        while True:
            self.up[name] = True
            try:
                await function()
                log.error("background task `%s` returned unexpectedly; restarting it", name)
            except Exception:
                log.exception("background task `%s` failed; restarting it", name)
            self.up[name] = False
            self.failures[name] += 1
            await asyncio.sleep(RESTART_SECONDS)


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done. One cancellation is not always enough: a task swallows it
    if a timeout or a connection attempt inside ends at the same moment."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _done, pending = await asyncio.wait(pending, timeout=RECANCEL_SECONDS)
