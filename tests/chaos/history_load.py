"""Runs the clients of a chaos run's history beside its load, and audits all jobs at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

from tests.chaos.cases import Case
from tests.chaos.history import Kind, Operation, Recorder
from tests.chaos.job_clients import JobClients, Plan, until_answered
from tests.support.receivers import SECRET, Post

SAMPLE_SECONDS = 0.5
MAX_QUEUE_JOBS = 40
"""Setting of the gateway that meets the crowd."""
CROWD = 60
"""Clients that submit at once."""
AUDITED_AT_A_TIME = 8
SMALL_BYTES = 200_000
LAST_JOBS_SECONDS = 180.0
WEBHOOK_SECONDS = 90.0
"""A gateway that dies while it sends a webhook holds it for a lease of 30 s."""


@dataclass(frozen=True, slots=True)
class Audit:
    """How one job looked after the run: its job object, and its event stream from the start."""

    job: dict[str, Any]
    events: list[dict[str, Any]]


class HistoryLoad:
    """Starts `rate` jobs a second from `run` to `finish`.

    `cases`: what they submit, the smallest first. `others`: gives the id of a job that somebody
    else has submitted, to be watched as well; empty if there is none.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        recorder: Recorder,
        cases: list[Case],
        *,
        webhook_url: str,
        rate: float,
        seed: int,
        others: Callable[[], str],
    ) -> None:
        self.cases: dict[str, Case] = {}
        """The case of each job that was accepted, by its id."""
        self._http = http
        self._recorder = recorder
        self._supply = cases
        self._webhook_url = webhook_url
        self._rate = rate
        self._seed = seed
        self._others = others
        self._finishing = False

    def finish(self) -> None:
        """Start no more jobs."""
        self._finishing = True

    async def run(self) -> None:
        """Returns when every job has ended. Raises TimeoutError if they do not."""
        number = 0
        async with (
            self._sampling_the_queue(),
            asyncio.timeout(None) as deadline,
            asyncio.TaskGroup() as clients,
        ):
            while not self._finishing:
                number += 1
                clients.create_task(self._one_job(number))
                if task_id := self._others():
                    watcher = self._clients(f"other-{number}")
                    clients.create_task(watcher.watch(task_id, (0.2,)))
                await asyncio.sleep(1 / self._rate)
            deadline.reschedule(asyncio.get_running_loop().time() + LAST_JOBS_SECONDS)

    async def crowd(self) -> None:
        """`CROWD` clients submit at once and come back as they are told, until every job has ended.
        Raises TimeoutError if they do not."""
        async with self._sampling_the_queue(), asyncio.timeout(LAST_JOBS_SECONDS):
            await asyncio.gather(*(self._one_of_a_crowd(f"crowd-{one}") for one in range(CROWD)))

    async def wait_for_webhooks(self) -> None:
        """Returns when every webhook has come, or after some time: the checker says which did
        not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WEBHOOK_SECONDS):
                while self._webhooks_to_come():  # noqa: ASYNC110 - threads receive them
                    await asyncio.sleep(SAMPLE_SECONDS)

    async def audit(self, task_ids: list[str]) -> dict[str, Audit]:
        """Read each job and its events once more. Jobs that are not found are left out."""
        auditor = self._clients("audit").client("reader")
        at_a_time = asyncio.Semaphore(AUDITED_AT_A_TIME)
        found = {}

        async def look(task_id: str) -> None:
            async with at_a_time:
                read = await until_answered(partial(auditor.read, task_id))
                if read.status == 200:
                    follow = await until_answered(partial(auditor.follow, task_id))
                    found[task_id] = Audit(read.value, follow.value.get("events", []))

        await asyncio.gather(*(look(task_id) for task_id in task_ids))
        return found

    async def _one_job(self, number: int) -> None:
        source = random.Random(f"{self._seed} {number}")
        plan = Plan.draw(source, source.choice(self._supply))
        key, clients = f"history-{self._seed}-{number}", self._clients(str(number))
        task_id = await clients.submit(plan, key, self._webhook_url)
        self.cases[task_id] = plan.case
        await clients.accompany(task_id, plan, key, self._webhook_url)

    async def _one_of_a_crowd(self, name: str) -> None:
        plan, clients = Plan(self._supply[0]), self._clients(name)
        task_id = await clients.submit(plan, f"{self._seed}-{name}", "")
        self.cases[task_id] = plan.case
        await clients.read_until_ended(task_id, clients.client("reader"))

    def _clients(self, name: str) -> JobClients:
        return JobClients(self._http, self._recorder, name)

    @asynccontextmanager
    async def _sampling_the_queue(self) -> AsyncIterator[None]:
        sampler = self._clients("queue").client("sampler")

        async def sample() -> None:
            while True:
                await sampler.queue()
                await asyncio.sleep(SAMPLE_SECONDS)

        sampling = asyncio.create_task(sample())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    def _webhooks_to_come(self) -> set[str]:
        operations = self._recorder.operations()
        wanted = {one.task_id for one in operations if one.sent.get("webhook_url")}
        return wanted - {one.task_id for one in operations if one.kind is Kind.WEBHOOK} - {""}


def record_webhook(recorder: Recorder, post: Post) -> None:
    """Record what a receiver got. Its threads call this."""
    headers, body = post
    try:
        Webhook(SECRET).verify(body, headers)
        signed = True
    except WebhookVerificationError:
        signed = False
    task_id, now = headers.get("webhook-id", ""), recorder.now()
    recorder.record(
        Operation(
            number=0,
            process="receiver",
            kind=Kind.WEBHOOK,
            invoked=now,
            returned=now,
            task_id=task_id,
            value={"id": task_id, "signed": signed, "body": body.decode()},
        )
    )


def small_cases(cases: list[Case]) -> list[Case]:
    """One of each case that is small, runs quickly and kills no process; the smallest first."""
    by_name = {
        case.name: case
        for case in cases
        if len(case.image) <= SMALL_BYTES
        and not case.tile
        and case.name not in ("kill", "hang", "slow")
    }
    return sorted(by_name.values(), key=lambda case: (case.detections is None, len(case.image)))
