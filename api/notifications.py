"""Wakes the requests that wait for a job when it changes. One subscription serves all of them.

A wake-up only says "read the job again", so an extra one does no harm. While the subscription is
lost, changes may be missed, so all waiting requests are woken once it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.job.record import JobState
from shared.redis_access.client import UNAVAILABLE

log = logging.getLogger("yolo_queue.api")

POSITION_SECONDS = 1.0
"""How often a request is told the new position of its queued job, at most."""
RECONNECT_SECONDS = 1.0
_UNFINISHED = (JobState.QUEUED.value, JobState.PROCESSING.value)


class Watch:
    """One request that waits for one job. `woken` is set when it should read the job again."""

    def __init__(self, task_id: str, *, end_only: bool = False) -> None:
        self.task_id = task_id
        self.end_only = end_only
        self.woken = asyncio.Event()
        self.wants_position = False

    async def wait(self, seconds: float) -> bool:
        """Sleep until woken. False: the time is up."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True


class Notifier:
    """The waiting requests of one gateway, by job."""

    def __init__(self, store: GatewayStore) -> None:
        self._store = store
        self._watches: dict[str, set[Watch]] = {}
        self._queue_moved = False
        self.draining = False

    def drain(self) -> None:
        """Make every waiting request answer now with the job as it is: the gateway will stop."""
        self.draining = True
        self._wake_all()

    @contextmanager
    def watch(self, task_id: str, *, end_only: bool = False) -> Iterator[Watch]:
        """Watch a job. Read the job after this, not before, or a change in between is missed.
        `end_only`: wake only when it has ended."""
        watch = Watch(task_id, end_only=end_only)
        watches = self._watches.setdefault(task_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches and self._watches.get(task_id) is watches:
                del self._watches[task_id]

    def count_watches(self) -> int:
        return sum(len(watches) for watches in self._watches.values())

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.woken.set()

    async def listen(self) -> None:
        """Wake the requests whose job has changed. Never returns."""
        while True:
            try:
                async for message in self._store.subscribe():
                    if message is None:  # subscribed, perhaps again
                        self._wake_all()
                        continue
                    task_id, state = message
                    if state != "queued":
                        self._queue_moved = True
                    # A newer gateway or worker may report a final state that is unknown here.
                    unfinished = state in _UNFINISHED
                    for watch in self._watches.get(task_id, ()):
                        if not (unfinished and watch.end_only):
                            watch.woken.set()
            except (*UNAVAILABLE, StoreUnavailable) as error:
                log.info("not notified of job changes while Redis is unavailable: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def tell_positions(self) -> None:
        """Wake the requests that want to know their job's position. Never returns."""
        while True:
            # Less often with thousands of watches, so that reading positions does not take over.
            await asyncio.sleep(max(POSITION_SECONDS, len(self._watches) / 500))
            if not self._queue_moved:
                continue
            self._queue_moved = False
            for watches in self._watches.values():
                for watch in watches:
                    if watch.wants_position:
                        watch.woken.set()
