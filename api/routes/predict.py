"""Owns `POST /predict/` (one image in, one job out) and `POST /predict/batch`."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import uploads, webhooks
from api.auth import authenticate
from api.job_view import Job, job_json, job_object
from api.problems import responses
from api.uploads import Upload
from api.waiting import preferred_wait, read_when_ended
from shared import errors, tracing
from shared.job.record import DetectParameters, NewJob
from shared.logs import current_task_id

router = APIRouter(tags=["jobs"])

_BINARY = {"type": "string", "format": "binary"}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": {field: schema}, "required": [field]}
    return {"multipart/form-data": {"schema": form}}


_ONE = {
    "requestBody": {
        "required": True,
        "content": {
            **_form("file", {**_BINARY, "description": "The image."}),
            **{kind: {"schema": _BINARY} for kind in ("image/jpeg", "image/png", "image/webp")},
        },
    }
}
_SEVERAL = {
    "requestBody": {
        "required": True,
        "content": _form("files", {"type": "array", "items": _BINARY, "minItems": 1}),
    }
}
_ERRORS = (
    errors.MissingImage,
    errors.UnsupportedMediaType,
    errors.UploadTooLarge,
    errors.UploadTooSlow,
    errors.InvalidImage,
    errors.TooManyPixels,
    errors.InvalidParameter,
    errors.NotAuthenticated,
    errors.TooManyRequests,
    errors.QueueFull,
    errors.GatewayBusy,
    errors.StoreUnavailable,
)


class PredictQuery(DetectParameters):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: list[int] | None = Field(  # type: ignore[assignment]
        None, max_length=1000, description="Class numbers to keep, repeated or comma-separated."
    )
    webhook_url: str = Field(
        "", max_length=2000, description="Where to post the finished job, without its picture."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [part for item in value for part in str(item).split(",")]
        return value

    def parameters(self) -> DetectParameters:
        return DetectParameters.model_validate(self.model_dump(exclude={"webhook_url"}))


class Batch(BaseModel):
    """One job for each image, in the order of the form."""

    jobs: list[Job]


Client = Annotated[str, Depends(authenticate)]
Parameters = Annotated[PredictQuery, Query()]


@router.post(
    "/predict/",
    status_code=201,
    summary="Submit an image",
    response_model=Job,
    openapi_extra=_ONE,
    responses={
        200: {"model": Job, "description": "The job this Idempotency-Key made before"},
        **responses(*_ERRORS, errors.IdempotencyConflict),
    },
)
async def submit(
    request: Request,
    client: Client,
    query: Parameters,
    idempotency_key: Annotated[
        str | None,
        Header(max_length=255, description="The same key and image give the same job."),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=SECONDS` holds the answer until the job has ended."),
    ] = None,
) -> Response:
    """Takes the image as the field `file` of a form, or as the raw body with its Content-Type.
    Answers at once; the job runs when a worker is free."""
    state = request.app.state
    await state.rate_limiter.check(client)
    size = uploads.announced_bytes(request, state.settings)
    seconds = preferred_wait(request)
    headers, result, watch = {}, None, None
    with ExitStack() as watching:
        with state.upload_budget.hold(client, size) as holding:
            await state.store.admit(size)
            upload = await uploads.receive(request, state.settings, holding)
            job = _new_job(request, client, query, upload, idempotency_key)
            if seconds:
                watch = watching.enter_context(state.notifier.watch(job.task_id, end_only=True))
            record, is_new = await state.store.accept(job)
        current_task_id.set(record.task_id)
        tracing.tag_task(record.task_id)
        if seconds:
            headers["Preference-Applied"] = f"wait={seconds:.0f}"
            found = await read_when_ended(
                request, record.task_id, seconds, begun=watch if is_new else None
            )
            record, result = found or (record, None)
    headers["Location"] = f"/result/{record.task_id}"
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return Response(
        job_json(record, result),
        201 if is_new else 200,
        headers,
        media_type="application/json",
    )


@router.post(
    "/predict/batch",
    status_code=201,
    summary="Submit several images",
    response_model=Batch,
    openapi_extra=_SEVERAL,
    responses=responses(*_ERRORS),
)
async def submit_batch(request: Request, client: Client, query: Parameters) -> Response:
    """Takes the images as the field `files`, repeated. All of them are accepted or none: one bad
    file, or a queue without room for all, refuses the batch."""
    state = request.app.state
    await state.rate_limiter.check(client)
    limit = state.settings.max_batch_files
    size = uploads.announced_bytes(request, state.settings, files=limit)
    with state.upload_budget.hold(client, size) as holding:
        await state.store.admit(size)
        received = await uploads.receive_batch(request, state.settings, holding)
        await state.rate_limiter.check_rest(client, len(received))
        jobs = [_new_job(request, client, query, upload, None) for upload in received]
        records, _ = await state.store.accept_all(jobs)
    body = {"jobs": [job_object(record) for record in records]}
    return Response(json.dumps(body), 201, media_type="application/json")


def _new_job(
    request: Request, client: str, query: PredictQuery, upload: Upload, key: str | None
) -> NewJob:
    if query.webhook_url:
        webhooks.check_url(query.webhook_url, request.app.state.settings)
    return NewJob(
        owner=client,
        image=upload.image,
        content_type=upload.header.content_type,
        width=upload.header.width,
        height=upload.header.height,
        parameters=query.parameters(),
        idempotency_key=f"{client}:{hashlib.sha256(key.encode()).hexdigest()}" if key else "",
        fingerprint=_fingerprint(query, upload) if key else "",
        webhook_url=query.webhook_url,
        traceparent=tracing.traceparent(),
    )


def _fingerprint(query: PredictQuery, upload: Upload) -> str:
    """Of all that makes a job what it is: the same key with another one is a mistake."""
    return hashlib.sha256(query.model_dump_json().encode() + b"\0" + upload.image).hexdigest()
