"""Owns waiting: wakes requests when their job changes, from one subscription for all of them.

A wake-up says only "look again". Missing one is harmless as long as everyone looks after it: when
the subscription was lost, all are woken once it stands again.
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
"""How often those who watch a queued job are told its new position, at most."""
RECONNECT_SECONDS = 1.0
_GOING_ON = (JobState.QUEUED.value, JobState.PROCESSING.value)


class Watch:
    """One request's interest in one job. `woken` is set when there is something to look at."""

    def __init__(self, task_id: str, *, end_only: bool = False) -> None:
        self.task_id = task_id
        self.end_only = end_only
        self.woken = asyncio.Event()
        self.wants_position = False

    async def wait(self, seconds: float) -> bool:
        """Sleep until woken; False when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True


class Notifier:
    def __init__(self, store: GatewayStore) -> None:
        self._store = store
        self._watches: dict[str, set[Watch]] = {}
        self._queue_moved = False
        self.draining = False

    def drain(self) -> None:
        """Let every waiting request answer with what there is: the gateway is about to stop."""
        self.draining = True
        self._wake_all()

    @contextmanager
    def watch(self, task_id: str, *, end_only: bool = False) -> Iterator[Watch]:
        """Begin to watch before reading the job, or a change in between is missed. `end_only`:
        to be woken by nothing but the job's end."""
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
        """Wake those whose job has changed. Never returns."""
        while True:
            try:
                async for message in self._store.subscribe():
                    if message is None:  # the subscription stands, perhaps again
                        self._wake_all()
                        continue
                    task_id, state = message
                    if state != "queued":
                        self._queue_moved = True
                    # A state that is not known here, of a newer gateway or worker, may be an end.
                    going_on = state in _GOING_ON
                    for watch in self._watches.get(task_id, ()):
                        if not (going_on and watch.end_only):
                            watch.woken.set()
            except (*UNAVAILABLE, StoreUnavailable) as error:
                log.info("no notifications while Redis is away: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def tell_positions(self) -> None:
        """Wake those who want to know their job's position. Never returns."""
        while True:
            # With very many watchers less often, so that looking does not become the work.
            await asyncio.sleep(max(POSITION_SECONDS, len(self._watches) / 500))
            if not self._queue_moved:
                continue
            self._queue_moved = False
            for watches in self._watches.values():
                for watch in watches:
                    if watch.wants_position:
                        watch.woken.set()
