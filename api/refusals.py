"""Responses that the gateway sends without asking the application."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import Receive, Scope, Send

from api.problems import problem

MAX_HEAD_BYTES = 64 * 1024
"""Of the request line and headers. One read brings up to 256 KiB, so a head that arrives in the
same read as the end of the previous request may have that much."""


class Refusal:
    """One such response: as an ASGI application, where a request is to be answered in its turn, and
    as bytes, where there is no request."""

    def __init__(self, status: int, code: str, detail: str, *, retry_seconds: int = 0) -> None:
        headers = {"Connection": "close"}
        if retry_seconds:
            headers["Retry-After"] = str(retry_seconds)
        answer = problem(status, code, detail, retryable=retry_seconds > 0, headers=headers)
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": answer.raw_headers,
        }
        self._body = bytes(answer.body)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.as_bytes = b"\r\n".join([*lines, b"", self._body])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)
        await send({"type": "http.response.body", "body": self._body, "more_body": True})
        # Most clients do not read a response before they have sent their whole body.
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.body", "body": b""})


TOO_MANY_CONNECTIONS = Refusal(
    503,
    "too_many_connections",
    "The gateway has reached its limit on connections; try again shortly.",
    retry_seconds=5,
)
HEAD_TOO_LARGE = Refusal(
    431,
    "head_too_large",
    f"The request line and headers may have at most {MAX_HEAD_BYTES:,} bytes.",
)
HEAD_TIMEOUT = Refusal(
    408,
    "request_timeout",
    "The request line and headers did not arrive in time.",
    retry_seconds=1,
)
NOT_HTTP = Refusal(400, "bad_request", "This is not a valid HTTP request.")
NO_WEBSOCKETS = Refusal(
    400,
    "bad_request",
    "WebSockets are not supported. GET /result/{id}/events streams a job's changes.",
)
