"""Owns `GET /health` (this process is up) and `GET /ready` (a job sent now would be worked on)."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.problems import responses
from shared import errors

router = APIRouter(tags=["service"])


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    status: Literal["ready"]
    ready_processes: int


@router.get("/health", summary="The gateway is up")
async def health() -> Health:
    return Health(status="ok")


@router.get(
    "/ready",
    summary="Redis answers and a worker consumes",
    responses=responses(errors.StoreUnavailable, errors.NoWorkerReady, errors.BackgroundTaskDown),
)
async def ready(request: Request) -> Readiness:
    """A worker counts when a pool process has loaded its model and the worker has lately taken a
    message through the same channel that jobs come through; an answer to ping does not count."""
    down = [name for name, up in request.app.state.background.up.items() if not up]
    if down:
        raise errors.BackgroundTaskDown(
            f"This gateway's background task is down: {', '.join(down)}. It is started again; its "
            "log says why it ended.",
            retry_after_seconds=2,
        )
    queue = await request.app.state.store.queue()
    if queue.ready_processes == 0:
        raise errors.NoWorkerReady(
            "No worker is ready to take work; jobs are accepted and will wait.",
            retry_after_seconds=5,
        )
    return Readiness(status="ready", ready_processes=queue.ready_processes)
