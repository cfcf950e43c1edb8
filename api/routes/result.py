"""Owns `/result/{task_id}`: the job, its picture."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from api.auth import authenticate
from api.job_view import Job, job_object
from api.problems import responses
from shared import errors
from shared.jobs import JobRecord, JobState

router = APIRouter(tags=["jobs"])

TaskId = Annotated[str, Path(description="As `POST /predict/` gave it.", max_length=64)]
Client = Annotated[str, Depends(authenticate)]
_COMMON = (
    errors.NotAuthenticated,
    errors.JobNotFound,
    errors.InvalidParameter,
    errors.StoreUnavailable,
)


@router.get("/result/{task_id}", summary="A job", response_model=Job, responses=responses(*_COMMON))
async def get_result(request: Request, task_id: TaskId, client: Client) -> Response:
    """A failed job is an answer, not an HTTP error: 200 with `status: failed` and `error`."""
    record, result = await find(request, task_id, client)
    return Response(json.dumps(job_object(record, result)), media_type="application/json")


@router.get(
    "/result/{task_id}/image",
    summary="The annotated picture",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {}}, "description": "The JPEG"},
        **responses(*_COMMON, errors.JobNotFinished),
    },
)
async def get_image(request: Request, task_id: TaskId, client: Client) -> Response:
    record, result = await find(request, task_id, client)
    if not result or not result.get("image"):
        raise errors.JobNotFinished(
            "The job was asked for no picture (annotate=false)."
            if record.state is JobState.COMPLETED
            else f"The job is {record.state.value}; only a completed job has a picture."
        )
    encoded = result["image"].partition(",")[2]
    return Response(base64.b64decode(encoded), media_type="image/jpeg")


async def find(
    request: Request, task_id: str, client: str
) -> tuple[JobRecord, dict[str, Any] | None]:
    """The client's job. Raises `JobNotFound`, also for the job of another key."""
    found = await request.app.state.intake.read(task_id)
    if found is None or (request.app.state.keys and found[0].owner != client):
        raise errors.JobNotFound("There is no such job: it never existed or its time is over.")
    return found  # type: ignore[no-any-return]
