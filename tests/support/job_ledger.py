"""Sends jobs to a gateway, remembers what it said about each, and asks again after an accident."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.client import TERMINAL
from tests.support.http_load import Answer, Connection, get, post_image

SUBMITTERS = 8
WAITING = 7
"""So many of them wait for each result; the others only submit."""
PAUSE_SECONDS = 0.05
ASKERS = 4
SETTLE_SECONDS = 30


@dataclass(slots=True)
class Entry:
    """A job that was answered with 201. Times are of this process' monotonic clock, in seconds."""

    task_id: str
    sent_at: float
    accepted_at: float
    finished_at: str = ""
    """As the service said, if it said that the job has ended."""
    ended_at: float = 0
    """When it said so."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an accident has cost."""

    accepted: int
    ended: int
    """Jobs whose end had been seen."""
    lost: int
    """Jobs whose id gives 404."""
    lost_ended: int
    """Lost jobs whose end had been seen."""
    backwards: int
    """Jobs that had ended, and now have not, or at another time: they run again."""
    window_ms: float
    """Age of the oldest lost acceptance at the accident."""
    backwards_window_ms: float
    """Age of the oldest end that is not so any more."""
    gaps: int
    """Lost jobs that were accepted before a job was sent that is not lost."""


@dataclass
class Ledger:
    """What the gateway at this port has said."""

    port: int
    images: Sequence[bytes]
    source: random.Random
    entries: list[Entry] = field(default_factory=list)
    refused: int = 0

    async def submit(self, accident: asyncio.Event) -> None:
        """Send jobs from several clients at once, until the accident."""

        async def client(waits: bool) -> None:
            try:
                await self._client(waits, accident)
            except (OSError, asyncio.IncompleteReadError):
                if not accident.is_set():
                    raise  # else the gateway was on that machine

        await asyncio.gather(*(client(n < WAITING) for n in range(SUBMITTERS)))

    async def _client(self, waits: bool, accident: asyncio.Event) -> None:
        async with Connection("127.0.0.1", self.port) as connection:
            while not accident.is_set():
                sent_at = time.monotonic()
                image = self.source.choice(self.images)
                answer = await connection.send(post_image("/predict/", image))
                if answer.status != 201:
                    assert answer.status == 503, answer.body
                    self.refused += 1
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                entry = Entry(answer.task_id(), sent_at, time.monotonic())
                self.entries.append(entry)
                if waits:
                    ended = await connection.send(get(f"/result/{entry.task_id}?wait=2"))
                    # What is said after the accident is about the next life.
                    if not accident.is_set() and ended.job_status() in TERMINAL:
                        entry.finished_at = _job(ended)["finished_at"]
                        entry.ended_at = time.monotonic()
                else:
                    await asyncio.sleep(PAUSE_SECONDS)

    async def losses(self, accident_at: float) -> Loss:
        """Ask for every job."""
        jobs = await self._ask(self.entries)
        lost = [entry for entry in self.entries if not jobs[entry.task_id]]
        kept = [entry for entry in self.entries if jobs[entry.task_id]]
        backwards = [
            entry
            for entry in kept
            if entry.finished_at and jobs[entry.task_id].get("finished_at") != entry.finished_at
        ]
        last_kept = max((entry.sent_at for entry in kept), default=0)
        return Loss(
            accepted=len(self.entries),
            ended=sum(bool(entry.finished_at) for entry in self.entries),
            lost=len(lost),
            lost_ended=sum(bool(entry.finished_at) for entry in lost),
            backwards=len(backwards),
            window_ms=_age_ms((entry.accepted_at for entry in lost), accident_at),
            backwards_window_ms=_age_ms(
                (e.ended_at for e in (*lost, *backwards) if e.finished_at), accident_at
            ),
            gaps=sum(entry.accepted_at < last_kept for entry in lost),
        )

    async def unfinished(self) -> list[dict[str, Any]]:
        """Jobs that are there and have not completed, within the time that they may take."""
        left = self.entries
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            jobs = await self._ask(left)
            left = [e for e in left if jobs[e.task_id] and jobs[e.task_id]["status"] != "completed"]
            if not left or time.monotonic() > deadline:
                return [jobs[entry.task_id] for entry in left]
            await asyncio.sleep(0.5)

    async def _ask(self, entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
        """The job of each id; empty if there is none."""
        jobs: dict[str, dict[str, Any]] = {}

        async def ask(some: Sequence[Entry]) -> None:
            async with Connection("127.0.0.1", self.port) as connection:
                for entry in some:
                    jobs[entry.task_id] = await _found(connection, entry.task_id)

        await asyncio.gather(*(ask(entries[n::ASKERS]) for n in range(ASKERS)))
        return jobs

    async def wait_accepting(self, *, completing: bool = True) -> None:
        """Until a job is accepted and, with a worker, completed."""
        async with Connection("127.0.0.1", self.port) as connection, asyncio.timeout(60):
            while True:
                answer = await connection.send(post_image("/predict/", self.images[0]))
                if answer.status == 201:
                    path = f"/result/{answer.task_id()}?wait=5"
                    ended = await connection.send(get(path))
                    if ended.job_status() == "completed" or not completing:
                        return
                await asyncio.sleep(0.1)


def _job(answer: Answer) -> dict[str, Any]:
    return dict(json.loads(answer.body))


def _age_ms(moments: Iterable[float], accident_at: float) -> float:
    """Of the oldest; 0 if there is none."""
    return round((accident_at - min(moments, default=accident_at)) * 1000, 1)


async def _found(connection: Connection, task_id: str) -> dict[str, Any]:
    """The job, empty if there is none. Asks again while Redis is unavailable."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            answer = await connection.send(get(f"/result/{task_id}"))
            if answer.status != 503:
                break
            await asyncio.sleep(PAUSE_SECONDS)
    assert answer.status in (200, 404), answer.body
    return _job(answer) if answer.status == 200 else {}
