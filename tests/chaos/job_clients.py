"""The clients of one job in a history: they submit, repeat, read, cancel and follow it.

What they do is drawn from the seed, so that requests overlap and answers are lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from shared.job.record import JobState
from tests.chaos.cases import Case
from tests.chaos.history import Operation, Outcome, Recorder
from tests.chaos.recording_client import ANSWER_SECONDS, RecordingClient
from yolo_queue.client.flows import pause_before_retry


@dataclass(frozen=True, slots=True)
class Plan:
    """What the clients of one job do. Times are in seconds after the job was accepted.

    - `impatience`: for each try to submit, after how long the client leaves without an answer
    - `racing`: two clients submit with the same key at once
    - `repeat_after`: when the request is repeated although it was answered; None: never
    - `cancel_after`: for each client that cancels
    - `leave_after`: for each connection to the event stream. The next one stays. None: nobody
      follows
    """

    case: Case
    annotate: bool = False
    webhook: bool = False
    racing: bool = False
    impatience: tuple[float, ...] = ()
    repeat_after: float | None = None
    cancel_after: tuple[float, ...] = ()
    leave_after: tuple[float, ...] | None = None

    @classmethod
    def draw(cls, source: random.Random, case: Case) -> Plan:
        return cls(
            case=case,
            annotate=source.random() < 0.5,
            webhook=source.random() < 0.4,
            racing=source.random() < 0.2,
            impatience=_some(source, 0.35, most=2, longest=0.03),
            repeat_after=source.uniform(0, 2) if source.random() < 0.3 else None,
            cancel_after=_some(source, 0.25, most=2, longest=0.4),
            leave_after=_some(source, 0.7, most=3, longest=0.5) if source.random() < 0.7 else None,
        )


def _some(source: random.Random, chance: float, *, most: int, longest: float) -> tuple[float, ...]:
    """With this chance a few times up to `longest`, otherwise none."""
    count = source.randint(1, most) if source.random() < chance else 0
    return tuple(source.uniform(0.001, longest) for _ in range(count))


class JobClients:
    """Clients whose names end in `name`."""

    def __init__(self, http: httpx.AsyncClient, recorder: Recorder, name: str) -> None:
        self._http = http
        self._recorder = recorder
        self._name = name

    def client(self, role: str) -> RecordingClient:
        return RecordingClient(self._http, self._recorder, f"{role}-{self._name}")

    async def submit(self, plan: Plan, key: str, webhook_url: str) -> str:
        """Submit until everybody who does so has an id; returns one of them."""
        submissions = [self._submit(self.client("submitter"), plan, key, webhook_url)]
        if plan.racing:
            submissions.append(self._submit(self.client("rival"), plan, key, webhook_url))
        task_id, *_ = await asyncio.gather(*submissions)
        return task_id

    async def accompany(self, task_id: str, plan: Plan, key: str, webhook_url: str) -> None:
        """Do the rest of the plan, until the job has ended."""
        cancels = [
            self._cancel(self.client(f"canceller-{number}"), task_id, after)
            for number, after in enumerate(plan.cancel_after)
        ]
        repeats = [] if plan.repeat_after is None else [self._repeat(plan, key, webhook_url)]
        await asyncio.gather(self.watch(task_id, plan.leave_after), *cancels, *repeats)

    async def watch(self, task_id: str, leave_after: tuple[float, ...] | None) -> None:
        """Two clients read the job until it has ended, and perhaps one follows its events."""
        watchers = [
            self.read_until_ended(task_id, self.client(f"reader-{which}")) for which in "ab"
        ]
        if leave_after is not None:
            watchers.append(self._follow(self.client("follower"), task_id, leave_after))
        await asyncio.gather(*watchers)

    async def read_until_ended(self, task_id: str, client: RecordingClient) -> None:
        source = random.Random(f"{task_id} {client.process}")
        while True:
            wait = source.choice((0.0, 0.0, 2.0))
            read = await until_answered(partial(client.read, task_id, wait=wait))
            if read.outcome is not Outcome.OK or _has_ended(read.value):
                return
            await asyncio.sleep(source.uniform(0.1, 2))

    async def _submit(self, client: RecordingClient, plan: Plan, key: str, webhook_url: str) -> str:
        patience = iter(plan.impatience)

        async def attempt() -> Operation:
            return await client.submit(
                plan.case.image,
                key,
                annotate=plan.annotate,
                webhook_url=webhook_url if plan.webhook else "",
                patience=next(patience, ANSWER_SECONDS),
            )

        accepted = await until_answered(attempt)
        if accepted.outcome is not Outcome.OK:
            raise AssertionError(f"{accepted}: {accepted.value}")
        return accepted.task_id

    async def _repeat(self, plan: Plan, key: str, webhook_url: str) -> None:
        await asyncio.sleep(plan.repeat_after or 0)
        await self._submit(self.client("submitter"), plan, key, webhook_url)

    async def _cancel(self, client: RecordingClient, task_id: str, after: float) -> None:
        """Cancel, and see at once what others would see."""
        await asyncio.sleep(after)
        await until_answered(partial(client.cancel, task_id))
        await client.read(task_id)

    async def _follow(
        self, client: RecordingClient, task_id: str, leave_after: tuple[float, ...]
    ) -> None:
        """Follow the events to the end, resuming where a connection ended, and once after that."""
        patience, last, ended = iter(leave_after), "", False
        while not ended:
            stream = await client.follow(
                task_id, last_event_id=last, patience=next(patience, ANSWER_SECONDS)
            )
            if stream.outcome is Outcome.REFUSED and stream.status != 503:
                return
            events = stream.value.get("events", ())
            last = next((one["id"] for one in reversed(events) if one["id"]), last)
            ended = bool(events) and _has_ended(events[-1]["data"])
            if not events:
                await asyncio.sleep(pause(stream, 0))
        await client.follow(task_id, last_event_id=last)


async def until_answered(
    request: Callable[[], Coroutine[Any, Any, Operation]],
) -> Operation:
    """Make a request until it has an answer that trying again would not change. Never comes back
    before the announced time."""
    tries = 0
    while True:
        operation = await request()
        answered = operation.outcome in (Outcome.OK, Outcome.REFUSED)
        if answered and operation.status not in (429, 503):
            return operation
        await asyncio.sleep(pause(operation, tries))
        tries += 1


def pause(operation: Operation, tries: int) -> float:
    """Seconds until the next try, as the project's own client waits."""
    announced = operation.retry_after
    return pause_before_retry(tries, float(announced) if announced.isdecimal() else None)


def _has_ended(job: dict[str, Any]) -> bool:
    return JobState(job["status"]).terminal
