"""Owns `POST /predict/`: one image in, one job out."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from api import uploads
from api.auth import authenticate
from api.job_view import Job, job_object
from api.problems import responses
from shared import errors
from shared.jobs import DetectParameters, NewJob

router = APIRouter(tags=["jobs"])

_BINARY = {"type": "string", "format": "binary"}
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {**_BINARY, "description": "The image."}},
                    "required": ["file"],
                }
            },
            **{kind: {"schema": _BINARY} for kind in ("image/jpeg", "image/png", "image/webp")},
        },
    }
}


class PredictQuery(DetectParameters):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: list[int] | None = Field(  # type: ignore[assignment]
        None, max_length=1000, description="Class numbers to keep, repeated or comma-separated."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _split_commas(cls, value: Any, _: ValidationInfo) -> Any:
        if isinstance(value, list):
            return [part for item in value for part in str(item).split(",")]
        return value


@router.post(
    "/predict/",
    status_code=201,
    summary="Submit an image",
    response_model=Job,
    openapi_extra=_REQUEST_BODY,
    responses={
        200: {"model": Job, "description": "The job this Idempotency-Key made before"},
        **responses(
            errors.MissingImage,
            errors.UnsupportedMediaType,
            errors.UploadTooLarge,
            errors.InvalidImage,
            errors.TooManyPixels,
            errors.InvalidParameter,
            errors.IdempotencyConflict,
            errors.NotAuthenticated,
            errors.TooManyRequests,
            errors.QueueFull,
            errors.GatewayBusy,
            errors.StoreUnavailable,
        ),
    },
)
async def submit(
    request: Request,
    client: Annotated[str, Depends(authenticate)],
    parameters: Annotated[PredictQuery, Query()],
    idempotency_key: Annotated[
        str | None,
        Header(max_length=255, description="The same key and image give the same job."),
    ] = None,
) -> Response:
    """Takes the image as the field `file` of a form, or as the raw body with its Content-Type.
    Answers at once; the job runs when a worker is free."""
    state = request.app.state
    await state.rate_limiter.check(client)
    size = uploads.announced_bytes(request, state.settings)
    async with state.upload_budget.reserve(size):
        await state.intake.admit(size)
        upload = await uploads.receive(request, state.settings)
        job = NewJob(
            owner=client,
            image=upload.image,
            content_type=upload.header.content_type,
            width=upload.header.width,
            height=upload.header.height,
            parameters=DetectParameters.model_validate(parameters.model_dump()),
            **_idempotency(client, idempotency_key, upload.image, parameters),
        )
        record, is_new = await state.intake.accept(job)
    headers = {"Location": f"/result/{record.task_id}"}
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return Response(
        json.dumps(job_object(record)),
        201 if is_new else 200,
        headers,
        media_type="application/json",
    )


def _idempotency(
    client: str, key: str | None, image: bytes, parameters: PredictQuery
) -> dict[str, str]:
    if not key:
        return {}
    fingerprint = hashlib.sha256(parameters.model_dump_json().encode() + b"\0" + image)
    return {
        "idempotency_key": f"{client}:{hashlib.sha256(key.encode()).hexdigest()}",
        "fingerprint": fingerprint.hexdigest(),
    }
