"""The errors of the client, made from the service's problem+json answers."""

from __future__ import annotations

import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx


class ApiError(Exception):
    """Base of every error of the service or the connection to it.

    - `code`: the stable name to branch on
    - `status`: the HTTP status; None if there was no answer, or if the job failed
    - `retryable`: whether the same request may succeed later
    - `retry_after`: seconds to wait before that, if the service said so
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
    """401: the API key is missing or unknown."""


class InvalidRequest(ApiError):
    """The image or a parameter is refused: too large, not an image, broken, out of range."""


class JobNotFound(ApiError):
    """404: the job never existed, has expired, or belongs to another key."""


class ModelNotFound(ApiError):
    """404: no worker has announced a model of this name. The message names those there are."""


class JobAlreadyFinished(ApiError):
    """409: the job has ended and cannot be cancelled."""


class JobNotFinished(ApiError):
    """The job has no result yet, or no annotated picture."""


class TooManyRequests(ApiError):
    """429: still above the rate limit after the client's retries."""


class Unavailable(ApiError):
    """The queue is full, Redis is unavailable, or the gateway failed, also after retries."""


class Unreachable(Unavailable):
    """No answer: connection refused, unknown host name, or a timeout."""


class WaitTimeout(ApiError, TimeoutError):
    """The job did not end in time. It continues, and `wait` may be called again."""

    def __init__(self, task_id: str, seconds: float) -> None:
        super().__init__(
            f"Job {task_id} has not ended within {seconds:g} s; it continues.",
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
    "model_not_found": ModelNotFound,
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
_RETRYABLE_STATUS = {429, 502, 503, 504}
_RETRYABLE_FAILURES = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


def from_answer(answer: httpx.Response) -> ApiError:
    """The error for an HTTP answer, also for one that a proxy made."""
    problem: object = None
    if "json" in answer.headers.get("content-type", ""):
        with suppress(ValueError):
            problem = answer.json()
    problem = problem if isinstance(problem, dict) else {}
    code = str(problem.get("code") or f"http_{answer.status_code}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = Unavailable if answer.status_code >= 500 else ApiError
    return kind(
        str(problem.get("detail") or f"HTTP {answer.status_code} {answer.reason_phrase}"),
        code=code,
        status=answer.status_code,
        retryable=bool(problem.get("retryable", answer.status_code in _RETRYABLE_STATUS)),
        retry_after=retry_after_seconds(answer.headers.get("retry-after", "")),
    )


def from_failure(failure: httpx.TransportError, url: str) -> Unreachable:
    """The error for a request that got no answer."""
    cause = str(failure) or type(failure).__name__
    return Unreachable(
        f"{url} does not answer: {cause}.",
        code="unreachable",
        retryable=isinstance(failure, _RETRYABLE_FAILURES),
    )


def retry_after_seconds(header: str) -> float | None:
    """A `Retry-After` header (seconds or a date) as seconds from now; None if it is neither."""
    with suppress(ValueError):
        return max(0.0, float(header))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None
