"""Serves `/result/{task_id}`: reads a job, its picture and other formats, and cancels it."""

from __future__ import annotations

import base64
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from api import result_formats
from api.auth import Owner
from api.job_schema import Job, job_json, job_object
from api.long_polling import MAX_WAIT_SECONDS, read_when_ended
from api.problems import responses
from api.services import services_of
from shared import errors, tracing
from shared.job.record import JobRecord, JobState
from shared.logs import current_task_id

router = APIRouter(tags=["jobs"])

TaskId = Annotated[
    str, Path(description="From the response of `POST /predict/`.", pattern=r"^[0-9A-Za-z-]{1,64}$")
]
COMMON_ERRORS = (
    errors.NotAuthenticated,
    errors.JobNotFound,
    errors.InvalidParameter,
    errors.StoreUnavailable,
)
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not modified since the ETag in If-None-Match"}
}


@router.get(
    "/result/{task_id}",
    summary="A job",
    response_model=Job,
    responses={
        200: {
            "description": "The job or, with `format`, its detections in that format",
            "content": {"text/plain": {}, "text/csv": {}},
        },
        **_NOT_MODIFIED,
        **responses(*COMMON_ERRORS, errors.JobNotFinished),
    },
)
async def get_result(
    request: Request,
    task_id: TaskId,
    owner: Owner,
    wait: Annotated[
        float,
        Query(
            ge=0, description=f"Seconds to wait for the job to end, {MAX_WAIT_SECONDS:.0f} at most."
        ),
    ] = 0,
    form: Annotated[
        result_formats.Format,
        Query(alias="format", description="For a completed job: COCO results, YOLO labels or CSV."),
    ] = "json",
) -> Response:
    """A failed job is not an HTTP error: the response is 200 with `status: failed` and `error`."""
    record, result = await find(request, task_id, owner, wait=wait)
    headers = _caching(request, record, form)
    if _matches(request, headers):
        return Response(status_code=304, headers=headers)
    if form == "json":
        return Response(job_json(record, result), headers=headers, media_type="application/json")
    if result is None:
        raise _not_finished(record)
    text = result_formats.render(form, task_id, json.loads(bytes(result)))
    return Response(text, headers={**headers, "Content-Type": result_formats.MEDIA_TYPES[form]})


@router.get(
    "/result/{task_id}/image",
    summary="The annotated picture",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}}, "description": "The JPEG"},
        **_NOT_MODIFIED,
        **responses(*COMMON_ERRORS, errors.JobNotFinished),
    },
)
async def get_image(request: Request, task_id: TaskId, owner: Owner) -> Response:
    record, result = await find(request, task_id, owner)
    if result is None:
        raise _not_finished(record)
    picture = json.loads(bytes(result)).get("image")
    if not picture:
        raise errors.JobNotFinished("The job has no picture: it was submitted with annotate=false.")
    headers = _caching(request, record, "image")
    if _matches(request, headers):
        return Response(status_code=304, headers=headers)
    encoded = picture.partition(",")[2]
    return Response(base64.b64decode(encoded), headers=headers, media_type="image/jpeg")


@router.delete(
    "/result/{task_id}",
    summary="Cancel a job",
    response_model=Job,
    responses=responses(*COMMON_ERRORS, errors.JobAlreadyFinished),
)
async def cancel(request: Request, task_id: TaskId, owner: Owner) -> Response:
    """A queued job never runs. A running job is not interrupted, but its result is discarded."""
    found, _ = await find(request, task_id, owner, with_result=False)
    record, cancelled = await services_of(request).store.cancel(found)
    if not cancelled:
        raise errors.JobAlreadyFinished(f"The job is already {record.state.value}.")
    return Response(json.dumps(job_object(record)), media_type="application/json")


async def find(
    request: Request, task_id: str, owner: str, *, wait: float = 0, with_result: bool = True
) -> tuple[JobRecord, memoryview | None]:
    """The owner's job and its result, once the job has ended or `wait` seconds are over.

    Raises `JobNotFound`, also for another owner's job. Without API keys owners are not compared.
    """
    current_task_id.set(task_id)
    tracing.tag_task(task_id)
    services = services_of(request)
    required = owner if services.keys else None
    if wait:
        found = await read_when_ended(request, task_id, wait, owner=required)
    else:
        found = await services.store.read(task_id, with_result=with_result)
    if found is None or (required is not None and found[0].owner != required):
        raise errors.JobNotFound("No such job: it never existed, or it has expired.")
    return found


def _not_finished(record: JobRecord) -> errors.JobNotFinished:
    state = record.state.value
    return errors.JobNotFinished(f"The job is {state}; only a completed job has a result.")


def _caching(request: Request, record: JobRecord, form: str) -> dict[str, str]:
    """A job that has ended does not change, so its response may be cached until it expires. Other
    jobs may change at any moment."""
    if not record.state.terminal:
        return {"Cache-Control": "no-store"}
    ttl = services_of(request).settings.result_ttl_seconds
    left = max(0, int((record.finished_ms or 0) / 1000 + ttl - time.time()))
    kept = f"private, max-age={left}" + (
        ", immutable" if record.state is JobState.COMPLETED else ""
    )
    return {"ETag": f'"{record.task_id}-{record.finished_ms}-{form}"', "Cache-Control": kept}


def _matches(request: Request, headers: dict[str, str]) -> bool:
    asked = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
    return "ETag" in headers and (headers["ETag"] in known or asked.strip() == "*")
