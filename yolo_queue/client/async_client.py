"""The asyncio client: runs the flows of `yolo_queue/client/flows.py` on httpx."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx

from yolo_queue.client import transport
from yolo_queue.client.errors import ApiError
from yolo_queue.client.flows import Call, Flow, Parameters, Requests
from yolo_queue.client.image_source import ImageSource, encoded
from yolo_queue.client.job_fields import JobFields, Outcome
from yolo_queue.client.service_state import ModelState, QueueState

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same methods, as coroutines."""

    def __init__(
        self,
        url: str = transport.DEFAULT_URL,
        api_key: str | None = None,
        *,
        retry_seconds: float = 60.0,
    ) -> None:
        self._requests = Requests(url.rstrip("/"), retry_seconds)
        self._http = httpx.AsyncClient(**transport.options(url, api_key))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def predict(
        self,
        source: ImageSource,
        *,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncJob:
        """See `Client.predict`. A thread reads and encodes the image."""
        return await self._predict(source, parameters, wait, idempotency_key)

    async def job(self, task_id: str) -> AsyncJob:
        """The present state of a job submitted earlier. Raises `JobNotFound`."""
        return AsyncJob(self, await self._run(self._requests.fetch(task_id)))

    async def map(
        self,
        sources: Iterable[ImageSource],
        *,
        concurrency: int = 8,
        ordered: bool = True,
        retry_seconds: float = 600.0,
        **parameters: Unpack[Parameters],
    ) -> AsyncIterator[Outcome[AsyncJob]]:
        """See `Client.map`; use it in an `async for`."""

        async def one(index: int, source: ImageSource) -> Outcome[AsyncJob]:
            job: AsyncJob | None = None
            try:
                job = await self._predict(source, parameters, 0.0, None, retry_seconds)
                await job.wait()
            except (ApiError, OSError, TypeError, ValueError) as error:
                return Outcome(index, source, job, error)
            return Outcome(index, source, job, job.error)

        under_way: deque[asyncio.Task[Outcome[AsyncJob]]] = deque()
        try:
            for index, source in enumerate(sources):
                under_way.append(asyncio.create_task(one(index, source)))
                if len(under_way) >= concurrency:
                    yield await _next(under_way, ordered)
            while under_way:
                yield await _next(under_way, ordered)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def queue(self) -> QueueState:
        return await self._run(self._requests.queue())

    async def model(self, name: str = "") -> ModelState:
        """A model, or the default model. Raises `ModelNotFound`, and `Unavailable` if no worker has
        loaded the default model yet."""
        return await self._run(self._requests.model(name))

    async def models(self) -> list[ModelState]:
        """All models that workers serve or have served lately."""
        return await self._run(self._requests.models())

    async def _predict(
        self,
        source: ImageSource,
        parameters: Parameters,
        wait: float,
        idempotency_key: str | None,
        retry_seconds: float | None = None,
    ) -> AsyncJob:
        flow = self._requests.submit(
            await asyncio.to_thread(encoded, source),
            parameters,
            wait=wait,
            idempotency_key=idempotency_key,
            retry_seconds=retry_seconds,
        )
        return AsyncJob(self, await self._run(flow))

    async def _run(self, flow: Flow[T]) -> T:
        """Make the calls and take the pauses that the flow yields."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Call):
                    try:
                        answer = await self._http.request(**transport.arguments(step))
                    except httpx.TransportError as failure:
                        step = flow.throw(failure)
                    else:
                        step = flow.send(answer)
                else:
                    await asyncio.sleep(step.seconds)
                    step = next(flow)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


class AsyncJob(JobFields):
    """A job as last fetched; `wait` and `refresh` fetch it again. See `Job`."""

    def __init__(self, client: AsyncClient, data: dict[str, Any]) -> None:
        super().__init__(data)
        self._client = client

    async def wait(self, timeout: float | None = None) -> AsyncJob:  # noqa: ASYNC109 - as `Job`
        """Wait until the job has ended, with or without a result. See `Job.wait`."""
        if not self.ended:
            self.data = await self._client._run(self._client._requests.wait(self.task_id, timeout))
        return self

    async def refresh(self) -> AsyncJob:
        self.data = await self._client._run(self._client._requests.fetch(self.task_id))
        return self

    async def cancel(self) -> AsyncJob:
        """Cancel the job. Raises `JobAlreadyFinished`."""
        self.data = await self._client._run(self._client._requests.cancel(self.task_id))
        return self

    async def text(self, form: str) -> str:
        """The result as `coco`, `yolo` or `csv`. Raises `JobNotFinished`."""
        return await self._client._run(self._client._requests.text(self.task_id, form))


async def _next(under_way: deque[asyncio.Task[T]], ordered: bool) -> T:
    if ordered:
        return await under_way.popleft()
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    first = done.pop()
    under_way.remove(first)
    return first.result()
