"""Owns the client's errors: one tree, made from the service's problem+json answers."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx


class ApiError(Exception):
    """Base of every error of the service or of the way to it.

    `code` is the stable name to branch on. `status` is the HTTP status, None where no answer came
    or where the job itself failed. `retryable` says whether the same request may succeed later;
    `retry_after`, in seconds, from when on, where the service said so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class NotAuthenticated(ApiError):
    """401: no key, or one that is not known there."""


class InvalidRequest(ApiError):
    """The image or a parameter is refused: too large, no image, broken, out of range."""


class JobNotFound(ApiError):
    """404: it never existed, its result has expired, or it belongs to another key."""


class JobAlreadyFinished(ApiError):
    """409: too late to cancel."""


class JobNotFinished(ApiError):
    """The result or the picture of a job that has none (yet)."""


class TooManyRequests(ApiError):
    """429: above the rate limit, also after the client's own retries."""


class Unavailable(ApiError):
    """The queue is full, Redis is away, or the gateway is in trouble, also after retries."""


class Unreachable(Unavailable):
    """No answer: connection refused, name unknown, time-out."""


class WaitTimeout(ApiError, TimeoutError):
    """The job had not ended within the time given to `wait`; it goes on, and can be waited for
    again."""

    def __init__(self, task_id: str, seconds: float) -> None:
        super().__init__(
            f"Job {task_id} has not ended within {seconds:g} s.",
            code="wait_timeout",
            retryable=True,
        )
        self.task_id = task_id


class JobFailed(ApiError):
    """The job ended without a result. `code` is its error's code, or `cancelled` or `expired`."""

    def __init__(self, task_id: str, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.task_id = task_id


_BY_CODE: dict[str, type[ApiError]] = {
    "job_not_found": JobNotFound,
    "job_already_finished": JobAlreadyFinished,
    "job_not_completed": JobNotFinished,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
}
_PASSING_STATUS = {429, 502, 503, 504}
_PASSING_FAILURES = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


def from_answer(answer: httpx.Response) -> ApiError:
    """The typed error of an HTTP answer; also of one that a proxy in between made."""
    body: object = None
    if "json" in answer.headers.get("content-type", ""):
        try:
            body = answer.json()
        except ValueError:
            body = None
    problem = body if isinstance(body, dict) else {}
    code = str(problem.get("code") or f"http_{answer.status_code}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = Unavailable if answer.status_code >= 500 else ApiError
    return kind(
        str(problem.get("detail") or f"HTTP {answer.status_code} {answer.reason_phrase}"),
        code=code,
        status=answer.status_code,
        retryable=bool(problem.get("retryable", answer.status_code in _PASSING_STATUS)),
        retry_after=retry_after_seconds(answer.headers.get("retry-after", "")),
    )


def from_failure(failure: httpx.TransportError, url: str) -> Unreachable:
    """The typed error of a request that got no answer."""
    cause = str(failure) or type(failure).__name__
    return Unreachable(
        f"{url} does not answer: {cause}.",
        code="unreachable",
        retryable=isinstance(failure, _PASSING_FAILURES),
    )


def retry_after_seconds(header: str) -> float | None:
    """A `Retry-After` header, seconds or a date, as seconds from now."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
