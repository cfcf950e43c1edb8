"""The synchronous client: runs the flows of `yolo_queue/client/flows.py` on httpx."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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


class Client:
    """A connection to one service, which threads may share. Close it, or use it in a `with`.

    Every method may raise an `ApiError`. A request that gets 429, 503 or no answer is retried for
    `retry_seconds`, never before the answer's `Retry-After`.
    """

    def __init__(
        self,
        url: str = transport.DEFAULT_URL,
        api_key: str | None = None,
        *,
        retry_seconds: float = 60.0,
    ) -> None:
        self._requests = Requests(url.rstrip("/"), retry_seconds)
        self._http = httpx.Client(**transport.options(url, api_key))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(
        self,
        source: ImageSource,
        *,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **parameters: Unpack[Parameters],
    ) -> Job:
        """Submit one image: a path, encoded bytes, a uint8 array of shape (height, width),
        (height, width, 3) RGB or (height, width, 4) RGBA, or a Pillow image; see
        `image_source.encoded`. With `wait` the service holds its answer until the job has ended,
        for that many seconds at most, which saves a round trip.

        Raises `InvalidRequest` if the service refuses the image, and OSError, TypeError or
        ValueError if it cannot be read or encoded.
        """
        return self._predict(source, parameters, wait, idempotency_key)

    def job(self, task_id: str) -> Job:
        """The present state of a job submitted earlier. Raises `JobNotFound`."""
        return Job(self, self._run(self._requests.fetch(task_id)))

    def map(
        self,
        sources: Iterable[ImageSource],
        *,
        concurrency: int = 8,
        ordered: bool = True,
        retry_seconds: float = 600.0,
        **parameters: Unpack[Parameters],
    ) -> Iterator[Outcome[Job]]:
        """Submit many images and wait for each, `concurrency` at a time. Yields their outcomes in
        the order of `sources`, or as they end with `ordered=False`.

        A bad image does not stop the others: its outcome has `error`, and `result()` raises it.
        `sources` is consumed as needed, so it may be endless. Leaving the loop stops the rest.
        """
        stop = threading.Event()
        under_way: deque[Future[Outcome[Job]]] = deque()

        def one(index: int, source: ImageSource) -> Outcome[Job]:
            job: Job | None = None
            try:
                job = self._predict(source, parameters, 0.0, None, retry_seconds, stop)
                job.data = self._run(self._requests.wait(job.task_id, None), stop)
            except (ApiError, OSError, TypeError, ValueError) as error:
                return Outcome(index, source, job, error)
            return Outcome(index, source, job, job.error)

        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="yolo-queue-map")
        try:
            for index, source in enumerate(sources):
                under_way.append(pool.submit(one, index, source))
                if len(under_way) >= concurrency:
                    yield _next(under_way, ordered)
            while under_way:
                yield _next(under_way, ordered)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def queue(self) -> QueueState:
        return self._run(self._requests.queue())

    def model(self, name: str = "") -> ModelState:
        """A model, or the default model. Raises `ModelNotFound`, and `Unavailable` if no worker has
        loaded the default model yet."""
        return self._run(self._requests.model(name))

    def models(self) -> list[ModelState]:
        """All models that workers serve or have served lately."""
        return self._run(self._requests.models())

    def _predict(
        self,
        source: ImageSource,
        parameters: Parameters,
        wait: float,
        idempotency_key: str | None,
        retry_seconds: float | None = None,
        stop: threading.Event | None = None,
    ) -> Job:
        flow = self._requests.submit(
            encoded(source),
            parameters,
            wait=wait,
            idempotency_key=idempotency_key,
            retry_seconds=retry_seconds,
        )
        return Job(self, self._run(flow, stop))

    def _run(self, flow: Flow[T], stop: threading.Event | None = None) -> T:
        """Make the calls and take the pauses that the flow yields, until `stop` is set."""
        try:
            step = next(flow)
            while stop is None or not stop.is_set():
                if isinstance(step, Call):
                    try:
                        answer = self._http.request(**transport.arguments(step))
                    except httpx.TransportError as failure:
                        step = flow.throw(failure)
                    else:
                        step = flow.send(answer)
                else:
                    time.sleep(step.seconds) if stop is None else stop.wait(step.seconds)
                    step = next(flow)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise ApiError("The loop over `map` was left.", code="stopped")


class Job(JobFields):
    """A job as last fetched; `wait` and `refresh` fetch it again."""

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        super().__init__(data)
        self._client = client

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job has ended, with or without a result, and return it. `timeout` in
        seconds; None: no limit. Raises `WaitTimeout`, `JobNotFound`."""
        if not self.ended:
            self.data = self._client._run(self._client._requests.wait(self.task_id, timeout))
        return self

    def refresh(self) -> Job:
        self.data = self._client._run(self._client._requests.fetch(self.task_id))
        return self

    def cancel(self) -> Job:
        """Cancel the job. Raises `JobAlreadyFinished`."""
        self.data = self._client._run(self._client._requests.cancel(self.task_id))
        return self

    def text(self, form: str) -> str:
        """The result as `coco`, `yolo` or `csv`. Raises `JobNotFinished`."""
        return self._client._run(self._client._requests.text(self.task_id, form))


def _next(under_way: deque[Future[T]], ordered: bool) -> T:
    if ordered:
        return under_way.popleft().result()
    done = next(iter(wait(under_way, return_when=FIRST_COMPLETED).done))
    under_way.remove(done)
    return done.result()
