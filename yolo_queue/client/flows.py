"""The protocol between client and service, without any I/O (sans-IO).

Each method of `Requests` returns a flow: a generator that yields the calls to make and the pauses
to take, is sent the answers, and returns the outcome. `Client` and `AsyncClient` only run flows, so
retries, waiting and errors are written once.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from yolo_queue.client import errors
from yolo_queue.client.job_fields import ENDED
from yolo_queue.client.service_state import ModelState, QueueState

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
FIRST_POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. The gateway may hold its answer for up to `hold_seconds`."""

    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    hold_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Flow = Generator[Call | Pause, Any, T]


class Parameters(TypedDict, total=False):
    """Options of a prediction, named as in Ultralytics; defaults of the service in brackets."""

    model: str
    """Name of the model (the service's default model)."""
    conf: float
    """Minimum confidence of a detection, 0-1 (0.25)."""
    iou: float
    """IoU above which overlapping boxes are merged, 0-1 (0.7)."""
    imgsz: int
    """Longer side of the network's input in pixels (640)."""
    max_det: int
    """Maximum number of detections (300)."""
    classes: list[int]
    """Class numbers to keep (all)."""
    tile: int | Literal["auto"]
    """Side of the tiles into which a large picture is cut, in its pixels, 256 to 2048; `auto`: as
    large as the network's input (no tiles)."""
    overlap: float
    """Share of a tile that its neighbours have as well, 0 to 0.5 (0.2)."""
    annotate: bool
    """Whether to draw the annotated picture (True)."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests that a client can make.

    - `retry_seconds`: how long a request that gets 429, 503 or no answer is retried, with growing
      pauses and never before `Retry-After`
    - `hold_seconds`: how long the gateway is asked to hold an answer; it has a limit of its own
    """

    url: str
    retry_seconds: float
    hold_seconds: float = 20.0

    def submit(
        self,
        image: bytes,
        parameters: Parameters,
        *,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        retry_seconds: float | None = None,
    ) -> Flow[dict[str, Any]]:
        """The job object. All tries have one idempotency key, so a try whose answer was lost and
        the next one give the same job."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Idempotency-Key": idempotency_key or uuid.uuid4().hex,
        }
        if wait:
            headers["Prefer"] = f"wait={math.ceil(wait)}"
        call = Call(
            "POST",
            "/predict/",
            params=_query(parameters),
            headers=headers,
            content=image,
            hold_seconds=wait,
        )
        return (yield from self._json(call, retry_seconds))

    def fetch(self, task_id: str) -> Flow[dict[str, Any]]:
        return (yield from self._json(Call("GET", f"/result/{task_id}")))

    def wait(self, task_id: str, timeout: float | None) -> Flow[dict[str, Any]]:
        """The job object once the job has ended. Raises `WaitTimeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = FIRST_POLL_SECONDS
        while True:
            asked_at = time.monotonic()
            left = self.hold_seconds if deadline is None else deadline - asked_at
            hold = max(0.0, min(self.hold_seconds, left))
            call = Call(
                "GET", f"/result/{task_id}", params={"wait": f"{hold:.3f}"}, hold_seconds=hold
            )
            retry_seconds = None if deadline is None else max(0.0, min(self.retry_seconds, left))
            job = yield from self._json(call, retry_seconds)
            if job["status"] in ENDED:
                return job
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise errors.WaitTimeout(task_id, timeout or 0.0)
            if now - asked_at < hold / 2:
                # The answer was not held: the gateway is stopping, or a proxy answered.
                left = poll if deadline is None else deadline - now
                yield Pause(max(0.0, min(poll, left)))
                poll = min(poll * 1.5, LONGEST_POLL_SECONDS)

    def cancel(self, task_id: str) -> Flow[dict[str, Any]]:
        """The job object after it was cancelled. Raises `JobAlreadyFinished`."""
        answer = yield from self._send(Call("DELETE", f"/result/{task_id}"))
        if answer.content:
            return dict(answer.json())
        return (yield from self.fetch(task_id))

    def text(self, task_id: str, form: str) -> Flow[str]:
        """The result in another form: `coco`, `yolo` or `csv`."""
        call = Call("GET", f"/result/{task_id}", params={"format": form})
        answer = yield from self._send(call)
        return answer.text

    def queue(self) -> Flow[QueueState]:
        return QueueState.from_json((yield from self._json(Call("GET", "/queue"))))

    def model(self, name: str) -> Flow[ModelState]:
        path = f"/models/{quote(name, safe='')}" if name else "/model"
        return ModelState.from_json((yield from self._json(Call("GET", path))))

    def models(self) -> Flow[list[ModelState]]:
        answer = yield from self._json(Call("GET", "/models"))
        return [ModelState.from_json(model) for model in answer["models"]]

    def _json(self, call: Call, retry_seconds: float | None = None) -> Flow[dict[str, Any]]:
        answer = yield from self._send(call, retry_seconds)
        return dict(answer.json())

    def _send(self, call: Call, retry_seconds: float | None = None) -> Flow[httpx.Response]:
        """A successful answer, after retries if they can help. Raises an `ApiError`."""
        if retry_seconds is None:
            retry_seconds = self.retry_seconds
        give_up_at = time.monotonic() + retry_seconds
        tries = 0
        while True:
            error: errors.ApiError
            try:
                answer: httpx.Response = yield call
            except httpx.TransportError as failure:
                error = errors.from_failure(failure, self.url)
            else:
                if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
                    return answer
                error = errors.from_answer(answer)
            pause = pause_before_retry(tries, error.retry_after)
            if not error.retryable or time.monotonic() + pause > give_up_at:
                raise error
            yield Pause(pause)
            tries += 1


def pause_before_retry(tries: int, retry_after: float | None) -> float:
    """Seconds to wait before the next try: doubling, random so that many clients do not return at
    once, and never less than `retry_after`."""
    longest = min(FIRST_PAUSE_SECONDS * 2**tries, LONGEST_PAUSE_SECONDS)
    spread = random.uniform(longest / 2, longest)  # noqa: S311 - no secret
    return spread if retry_after is None else retry_after + spread / 4


def _query(parameters: Parameters) -> dict[str, str]:
    query = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            query[name] = ",".join(map(str, value))
        else:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return query
