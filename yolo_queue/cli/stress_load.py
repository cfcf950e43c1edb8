"""Generates the load of a stress run: sends images, waits for their jobs, samples the queue."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from yolo_queue import ApiError, AsyncClient, AsyncJob, JobNotFound, Parameters
from yolo_queue.cli.stress_account import Sample, Shot
from yolo_queue.cli.stress_images import Supply
from yolo_queue.client.flows import pause_before_retry

WAITERS = 256
"""Jobs waited for at once, the oldest first, as the queue serves them."""
HOLD_SECONDS = 20.0
SAMPLE_SECONDS = 0.5
SECOND_LOOK_SECONDS = 120.0
"""The result of a job that ended longer ago may have expired, as it should."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send.

    - `concurrency`: uploads at a time
    - `rate`: images a second; 0: as fast as the uploads go
    - `retry_seconds`: how long a refused image is tried again
    - `patience_seconds`: if no job ends for so long, those that remain count as unfinished
    """

    count: int
    concurrency: int
    rate: float = 0.0
    retry_seconds: float = 120.0
    patience_seconds: float = 120.0
    annotate: bool = True


class Load:
    """One run. `shots` and `samples` may be read while it goes on."""

    def __init__(self, client: AsyncClient, supply: Supply, plan: Plan) -> None:
        self.shots = [Shot(index) for index in range(plan.count)]
        self.samples: list[Sample] = []
        self._client = client
        self._supply = supply
        self._plan = plan
        self._accepted: asyncio.Queue[tuple[Shot, AsyncJob]] = asyncio.Queue()
        self._began = time.monotonic()
        self._progressed = 0.0

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def parameters_of(self, shot: Shot) -> Parameters:
        return {"annotate": self._plan.annotate}

    async def run(self) -> None:
        """Send every image, and return when each is accounted for."""
        self._began = time.monotonic()
        sampler = asyncio.create_task(self._sample())
        waiters = [
            asyncio.create_task(self._wait_for_jobs())
            for _ in range(min(WAITERS, self._plan.count))
        ]
        try:
            await self._send_all()
            await self._accepted.join()
        finally:
            for task in (sampler, *waiters):
                task.cancel()
            await asyncio.gather(sampler, *waiters, return_exceptions=True)

    async def look_again(self) -> None:
        """Read every job that ended recently once more: its end must not have changed."""
        recent = [
            shot
            for shot in self.shots
            if shot.ended is not None and self.now() - shot.ended < SECOND_LOOK_SECONDS
        ]
        at_a_time = asyncio.Semaphore(16)

        async def look(shot: Shot) -> None:
            async with at_a_time:
                with suppress(ApiError):
                    shot.compare(await self._client.job(shot.task_id))

        await asyncio.gather(*(look(shot) for shot in recent))

    async def _send_all(self) -> None:
        turn = self._turns()

        async def send_in_turn() -> None:
            for shot in turn:
                if self._plan.rate:
                    await asyncio.sleep(shot.index / self._plan.rate - self.now())
                await self._send(shot)

        uploads = min(self._plan.concurrency, len(self.shots))
        await asyncio.gather(*(send_in_turn() for _ in range(uploads)))

    def _turns(self) -> Iterator[Shot]:
        """The shots in the order in which they are sent."""
        yield from self.shots

    async def _send(self, shot: Shot) -> None:
        """Try until it is accepted, refused for good, or refused for too long."""
        image, parameters = self._supply.image(shot.index), self.parameters_of(shot)
        key = uuid.uuid4().hex
        shot.bytes, shot.started, shot.state = len(image), self.now(), "sending"
        while True:
            asked = self.now()
            try:
                job = await self._client.predict(image, idempotency_key=key, **parameters)
            except ApiError as error:
                shot.refusals.append(error.code)
                pause = pause_before_retry(len(shot.refusals) - 1, error.retry_after)
                out_of_time = self.now() + pause - shot.started > self._plan.retry_seconds
                if not error.retryable or out_of_time:
                    shot.state = "refused"
                    return
                await asyncio.sleep(pause)
                continue
            shot.accepted = self._progressed = self.now()
            shot.submit_seconds = shot.accepted - asked
            shot.task_id, shot.state = job.task_id, job.status
            self._accepted.put_nowait((shot, job))
            return

    async def _wait_for_jobs(self) -> None:
        while True:
            shot, job = await self._accepted.get()
            try:
                await self._wait(shot, job)
            finally:
                self._accepted.task_done()

    async def _wait(self, shot: Shot, job: AsyncJob) -> None:
        while not job.ended:
            try:
                await job.wait(HOLD_SECONDS)
            except JobNotFound:
                shot.state = "lost"
                return
            except ApiError as error:  # such as `WaitTimeout`
                if self.now() - self._progressed > self._plan.patience_seconds:
                    shot.state, shot.code = "unfinished", error.code
                    return
                if error.code != "wait_timeout":
                    await asyncio.sleep(1)
        self._progressed = self.now()
        shot.end(job, self.now())

    async def _sample(self) -> None:
        while True:
            with suppress(ApiError):
                queue = await self._client.queue()
                self.samples.append(
                    Sample(self.now(), queue.depth, queue.in_flight, queue.ready_processes)
                )
            await asyncio.sleep(SAMPLE_SECONDS)
