"""Serves `GET /health` (this process is up) and `GET /ready` (a job sent now would be run)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from api.problems import responses
from api.services import services_of
from shared import errors

router = APIRouter(tags=["service"])


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    status: Literal["ready"]
    ready_processes: int
    models: dict[str, int] = Field(description="Ready processes by model.")


@router.get("/health", summary="The gateway is up")
async def health() -> Health:
    return Health(status="ok")


@router.get(
    "/ready",
    summary="Redis answers and a worker consumes",
    responses=responses(
        errors.ModelNotFound,
        errors.StoreUnavailable,
        errors.NoWorkerReady,
        errors.BackgroundTaskDown,
    ),
)
async def ready(
    request: Request,
    model: Annotated[str, Query(description="Ask about this model alone.")] = "",
) -> Readiness:
    """A worker is ready if a pool process has loaded its models and the worker has lately received
    a message through the channel that jobs come through. An answer to a ping is not enough."""
    services = services_of(request)
    down = [name for name, up in services.background.up.items() if not up]
    if down:
        raise errors.BackgroundTaskDown(
            f"Background tasks of this gateway are down and will be restarted: {', '.join(down)}. "
            "The gateway's log says why they failed.",
            retry_after_seconds=2,
        )
    queue = await services.store.queue()
    models = {name: state.ready_processes for name, state in queue.models.items()}
    number, who = queue.ready_processes, "worker"
    if model:
        name = services.store.model_name(model, queue)
        number, who = models.get(name, 0), f"worker of the model {name}"
    if number == 0:
        raise errors.NoWorkerReady(
            f"No {who} is ready. Jobs are accepted and will wait.", retry_after_seconds=5
        )
    return Readiness(status="ready", ready_processes=number, models=models)
