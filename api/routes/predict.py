"""Serves `POST /predict/` and `POST /predict/batch`, which turn images into jobs."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import uploads, webhook_sender
from api.auth import Owner
from api.job_schema import Job, job_json, job_object
from api.long_polling import preferred_wait, read_when_ended
from api.problems import responses
from api.services import services_of
from api.uploads import Upload
from shared import errors, tracing
from shared.job.queue_state import ModelState
from shared.job.record import DetectParameters, JobState, NewJob
from shared.logs import current_task_id
from shared.settings import MODEL_NAME, Settings
from shared.tiling import parts_of

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
    errors.TooManyTiles,
    errors.InvalidParameter,
    errors.NotAuthenticated,
    errors.ModelNotFound,
    errors.TooManyRequests,
    errors.QueueFull,
    errors.GatewayBusy,
    errors.StoreUnavailable,
)


class PredictQuery(DetectParameters):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: list[int] | None = Field(  # type: ignore[assignment]
        None,
        max_length=1000,
        description="Class numbers to keep, repeated or comma-separated.",
    )
    model: str = Field(
        "",
        pattern=f"{MODEL_NAME}|^$",
        description="Name of the model (`GET /models`); the default model if there is none.",
    )
    webhook_url: str = Field(
        "", max_length=2000, description="URL to post the finished job to, without its picture."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [part for item in value for part in str(item).split(",")]
        return value

    def parameters(self) -> DetectParameters:
        return DetectParameters.model_validate(self.model_dump(exclude={"model", "webhook_url"}))


class Batch(BaseModel):
    """One job per image, in the order of the form."""

    jobs: list[Job]


Parameters = Annotated[PredictQuery, Query()]


@router.post(
    "/predict/",
    status_code=201,
    summary="Submit an image",
    response_model=Job,
    openapi_extra=_ONE,
    responses={
        200: {"model": Job, "description": "The job that this Idempotency-Key has made before"},
        **responses(*_ERRORS, errors.IdempotencyConflict),
    },
)
async def submit(
    request: Request,
    owner: Owner,
    query: Parameters,
    idempotency_key: Annotated[
        str | None,
        Header(max_length=255, description="The same key and image give the same job."),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=SECONDS` waits for the job to end."),
    ] = None,
) -> Response:
    """Send the image in the form field `file`, or as the raw body with its Content-Type. The
    response comes at once; the job runs when a worker is free."""
    services = services_of(request)
    settings, store = services.settings, services.store
    await services.rate_limiter.check(owner)
    size = uploads.announced_bytes(request, settings)
    seconds = preferred_wait(request)
    headers, watch = {}, None
    with ExitStack() as watching:
        with services.upload_budget.allocate(owner, size) as allocation:
            model = await store.admit(size, query.model)
            _check_task(query, model)
            upload = await uploads.receive(request, settings, allocation)
            job = _new_job(settings, owner, model.name, query, upload, idempotency_key)
            if seconds:
                watch = watching.enter_context(services.notifier.watch(job.task_id, end_only=True))
            record, is_new = await store.accept(job)
        current_task_id.set(record.task_id)
        tracing.tag_task(record.task_id)
        found = None
        if seconds:
            headers["Preference-Applied"] = f"wait={seconds:.0f}"
            found = await read_when_ended(
                request, record.task_id, seconds, new_job=watch if is_new else None
            )
        elif record.state is JobState.COMPLETED:  # a repeat of a request made a while ago
            found = await store.read(record.task_id)
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
async def submit_batch(request: Request, owner: Owner, query: Parameters) -> Response:
    """Send each image in a form field `files`. The batch is accepted as a whole or not at all: one
    bad image, or a queue without room for all of them, refuses it."""
    services = services_of(request)
    settings, store = services.settings, services.store
    await services.rate_limiter.check(owner)
    size = uploads.announced_bytes(request, settings, files=settings.max_batch_files)
    with services.upload_budget.allocate(owner, size) as allocation:
        model = await store.admit(size, query.model)
        _check_task(query, model)
        received = await uploads.receive_batch(request, settings, allocation)
        await services.rate_limiter.check_rest(owner, len(received))
        jobs = [_new_job(settings, owner, model.name, query, upload, None) for upload in received]
        records, _ = await store.accept_all(jobs)
    body = {"jobs": [job_object(record) for record in records]}
    return Response(json.dumps(body), 201, media_type="application/json")


def _check_task(query: PredictQuery, model: ModelState) -> None:
    if query.tile is not None and model.task == "classify":
        raise errors.InvalidParameter(
            f"tile: the model {model.name} classifies whole pictures, so it cannot take tiles"
        )


def _new_job(
    settings: Settings,
    owner: str,
    model: str,
    query: PredictQuery,
    upload: Upload,
    key: str | None,
) -> NewJob:
    if query.webhook_url:
        webhook_sender.check_url(query.webhook_url, settings)
    parameters = query.parameters()
    tiling = parameters.tiling(*upload.header.upright_size, settings.max_tiles)
    return NewJob(
        owner=owner,
        model=model,
        image=upload.image,
        content_type=upload.header.content_type,
        width=upload.header.width,
        height=upload.header.height,
        parameters=parameters,
        idempotency_key=f"{owner}:{hashlib.sha256(key.encode()).hexdigest()}" if key else "",
        fingerprint=_fingerprint(query, upload) if key else "",
        webhook_url=query.webhook_url,
        traceparent=tracing.traceparent(),
        parts=parts_of(tiling, parameters.imgsz),
    )


def _fingerprint(query: PredictQuery, upload: Upload) -> str:
    """Of everything that defines a job. A key that is reused with another one is refused."""
    return hashlib.sha256(query.as_json().encode() + b"\0" + upload.image).hexdigest()
