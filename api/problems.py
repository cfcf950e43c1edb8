"""Turns errors into HTTP responses: a status for each class, and problem+json (RFC 9457)."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.http_metrics import mark_problem
from shared import errors

log = logging.getLogger("yolo_queue.api")

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[errors.YoloQueueError], int] = {
    errors.MissingImage: 422,
    errors.UnsupportedMediaType: 415,
    errors.UploadTooLarge: 413,
    errors.UploadTooSlow: 408,
    errors.InvalidImage: 422,
    errors.TooManyPixels: 422,
    errors.TooManyTiles: 422,
    errors.InvalidParameter: 422,
    errors.IdempotencyConflict: 422,
    errors.NotAuthenticated: 401,
    errors.TooManyRequests: 429,
    errors.JobNotFound: 404,
    errors.ModelNotFound: 404,
    errors.JobNotFinished: 409,
    errors.JobAlreadyFinished: 409,
    errors.QueueFull: 503,
    errors.GatewayBusy: 503,
    errors.StoreUnavailable: 503,
    errors.NoWorkerReady: 503,
    errors.BackgroundTaskDown: 503,
}
_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    413: "Upload too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    431: "Request head too large",
    500: "Internal error",
    503: "Temporarily unavailable",
}
_CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Temporarily unavailable"])
    status: int = Field(examples=[503])
    detail: str = Field(examples=["The queue is full (10000 jobs waiting); try again in 12 s."])
    code: str = Field(description="Stable name of the error.", examples=["queue_full"])
    retryable: bool = Field(description="Whether the same request may succeed later.")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
) -> Response:
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
    }
    return Response(json.dumps(body), status, headers, media_type=MEDIA_TYPE)


def responses(*kinds: type[errors.YoloQueueError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the errors that a route may answer with, each with an example."""
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = STATUS[kind]
        entry = documented.setdefault(
            status,
            {
                "description": _TITLES[status],
                "content": {MEDIA_TYPE: {"schema": {"$ref": _REF}, "examples": {}}},
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {
            "value": {
                "type": "about:blank",
                "title": _TITLES[status],
                "status": status,
                "detail": (kind.__doc__ or kind.code.replace("_", " ").capitalize() + ".").strip(),
                "code": kind.code,
                "retryable": kind.retryable,
            }
        }
        if kind.retryable:
            entry.setdefault("headers", {})["Retry-After"] = {
                "description": "Seconds after which to try again.",
                "schema": {"type": "integer", "minimum": 1},
            }
    return documented


_REF = "#/components/schemas/Problem"


def install(app: FastAPI) -> None:
    """Add the exception handlers, and the schema of a problem to the OpenAPI document."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(errors.YoloQueueError)
    async def _known(request: Request, error: errors.YoloQueueError) -> Response:
        mark_problem(request, error.code)
        headers = {}
        if error.retry_after_seconds is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        if isinstance(error, errors.UploadTooSlow):
            headers["Connection"] = "close"  # do not wait for the rest of the body
        if isinstance(error, errors.NotAuthenticated):
            headers["WWW-Authenticate"] = "Bearer"
        return problem(
            STATUS.get(type(error), 500),
            error.code,
            error.message,
            retryable=error.retryable,
            headers=headers,
        )

    @app.exception_handler(ClientDisconnect)
    async def _left(request: Request, _: ClientDisconnect) -> Response:
        # Nobody receives this. It is for the metrics, with the status that nginx uses.
        mark_problem(request, "client_left")
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        mark_problem(request, errors.InvalidParameter.code)
        parts = (
            f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        return problem(422, errors.InvalidParameter.code, "; ".join(parts))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, f"http_{error.status_code}")
        return problem(
            error.status_code, code, str(error.detail), headers=dict(error.headers or {})
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "internal", "Unexpected error; the gateway's log has the details.")
