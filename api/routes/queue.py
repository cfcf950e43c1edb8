"""Serves `GET /queue`: how many jobs wait, how fast they are run and which workers there are."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from api.auth import authenticate
from api.problems import responses
from api.services import services_of
from shared import errors
from shared.job.queue_state import SHORT_VERSION, ModelState

router = APIRouter(tags=["service"])


class Worker(BaseModel):
    name: str = Field(examples=["celery@host/4711"])
    processes: int = Field(description="Pool processes, each with its own model.")
    ready: int = Field(description="Processes that have loaded their model and take jobs.")
    running: int = Field(description="Running jobs.")
    models: dict[str, str] = Field(
        description="Its models, with their versions.",
        examples=[{"codes": "9f86d081884c"}],
    )


class ModelQueue(BaseModel):
    """One model's part of the queue."""

    name: str = Field(examples=["codes"])
    default: bool = Field(description="Whether requests without `model` get it.")
    depth: int
    in_flight: int
    backlog: int
    ready_processes: int
    oldest_age_seconds: float
    drain_rate: float | None

    @classmethod
    def of(cls, model: ModelState, default: str) -> ModelQueue:
        """`default`: the name of the default model."""
        return cls(
            name=model.name,
            default=model.name == default,
            depth=model.depth,
            in_flight=model.in_flight,
            backlog=model.depth + model.in_flight,
            ready_processes=model.ready_processes,
            oldest_age_seconds=model.oldest_age_seconds,
            drain_rate=round(model.drain_rate, 3) if model.drain_rate else None,
        )


class Queue(BaseModel):
    depth: int = Field(description="Waiting jobs; of a job with many tiles, its waiting parts.")
    in_flight: int = Field(description="Running jobs, or parts of jobs.")
    backlog: int = Field(description="What waits and what runs: what workers are needed for.")
    ready_processes: int = Field(description="Pool processes ready for jobs, of all workers.")
    oldest_age_seconds: float = Field(description="How long the oldest waiting job has waited.")
    drain_rate: float | None = Field(
        description="Measured jobs per second, each tile being one; null if unknown."
    )
    finished_total: int = Field(description="Jobs that have ended so far, in any state.")
    dead_letters: int
    models: list[ModelQueue]
    workers: list[Worker]


@router.get(
    "/queue",
    summary="State of the queue",
    dependencies=[Depends(authenticate)],
    responses=responses(errors.NotAuthenticated, errors.StoreUnavailable),
)
async def get_queue(request: Request) -> Queue:
    store = services_of(request).store
    state = await store.queue()
    default = store.default_model(state)
    return Queue(
        depth=state.depth,
        in_flight=state.in_flight,
        backlog=state.depth + state.in_flight,
        ready_processes=state.ready_processes,
        oldest_age_seconds=state.oldest_age_seconds,
        drain_rate=round(state.drain_rate, 3) if state.drain_rate else None,
        finished_total=sum(n for name, n in state.stats.items() if name.startswith("jobs:")),
        dead_letters=state.dead_letters,
        models=[ModelQueue.of(model, default) for model in state.models.values()],
        workers=[
            Worker(
                name=name,
                **{key: report[key] for key in ("processes", "ready", "running")},
                models={
                    model: version[:SHORT_VERSION]
                    for model, version in report.get("models", {}).items()
                },
            )
            for name, report in sorted(state.workers.items())
        ],
    )
