"""Runs the gateway's background tasks: starts one again that ends by an error, and says which are
down."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

log = logging.getLogger("yolo_queue.api")

RETRY_SECONDS = 1.0
RESTART_SECONDS = 1.0


class BackgroundTasks:
    """Each task is a coroutine function that never returns. A gateway without one of them would go
    on answering and do only half of its work, so its death is seen in `/ready` and in the metrics.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self.up: dict[str, bool] = {}
        """Whether each task runs, by its name."""
        self.failures: Counter[str] = Counter()
        """How often each has ended by itself."""

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
                log.error("the background task `%s` has returned; starting it again", name)
            except Exception:
                log.exception("the background task `%s` has failed; starting it again", name)
            self.up[name] = False
            self.failures[name] += 1
            await asyncio.sleep(RESTART_SECONDS)


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are done. Once is not always enough: a cancellation that comes in
    the moment a time-out or a connection attempt inside the task ends can be swallowed by it."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _done, pending = await asyncio.wait(pending, timeout=RETRY_SECONDS)
