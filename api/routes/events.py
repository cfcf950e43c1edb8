"""Serves `GET /result/{task_id}/events`: every change of a job as a server-sent event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.auth import Owner
from api.job_schema import job_object
from api.problems import responses
from api.routes.result import COMMON_ERRORS, TaskId, find
from api.services import services_of
from shared.errors import StoreUnavailable
from shared.job.record import JobState

router = APIRouter(tags=["jobs"])

KEEP_ALIVE_SECONDS = 15
RETRY_SECONDS = 1.0
RECHECK_SECONDS = 60.0
"""A stream reads its job again after this time even if nothing woke it."""


@router.get(
    "/result/{task_id}/events",
    summary="A job's changes as they happen",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events named `job`, each with the job object without "
            "its picture. The stream ends when the job has ended.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **responses(*COMMON_ERRORS),
    },
)
async def get_events(
    request: Request,
    task_id: TaskId,
    owner: Owner,
    last_event_id: str = Header("", pattern=r"^(\d{1,19}-\d{1,19})?$"),
) -> Response:
    """Sends the job as it is, then every change of its status and, while it is queued, of its
    position. After a lost connection, `Last-Event-ID` brings the events that were missed."""
    await find(request, task_id, owner)
    return EventSourceResponse(
        _stream(request, task_id, last_event_id),
        ping=KEEP_ALIVE_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(request: Request, task_id: str, last_id: str) -> AsyncIterator[ServerSentEvent]:
    services = services_of(request)
    store, notifier = services.store, services.notifier
    sent_position: tuple[int | None, int | None] | None = None
    with notifier.watch(task_id) as watch:
        while True:
            try:
                entries, record = await store.changes(task_id, last_id)
                done = record is not None and record.state is JobState.COMPLETED
                found = await store.read(task_id) if entries and done else None
            except StoreUnavailable:
                # Keep the stream open. It goes on when Redis is back.
                await watch.wait(RETRY_SECONDS)
                if notifier.draining:
                    return
                continue
            # Older changes first. The last one is sent with the whole job, below.
            for event_id, fields in entries[:-1]:
                yield _event({"task_id": task_id, **fields}, event_id)
            if record is None:
                return  # it has expired
            position = (record.position, record.eta_ms)
            if entries:
                last_id = entries[-1][0]
                result = json.loads(bytes(found[1])) if found and found[1] else None
                job = job_object(record, result)
                if result:
                    job["image"] = job["links"]["image"]
                yield _event(job, last_id)
            elif record.state is JobState.QUEUED and position != sent_position:
                yield _event(job_object(record), None)
            if record.state.terminal or notifier.draining:
                return
            sent_position = position
            watch.wants_position = record.state is JobState.QUEUED
            await watch.wait(RECHECK_SECONDS)


def _event(data: dict[str, object], event_id: str | None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data), event="job", id=event_id)
