"""Serves `GET /models`, `GET /models/{name}` and `GET /model`: what is served, by whom, and what
waits for it."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from api.auth import authenticate
from api.problems import responses
from api.routes.queue import ModelQueue
from api.services import services_of
from shared import errors
from shared.job.queue_state import SHORT_VERSION, ModelState, QueueState

router = APIRouter(tags=["service"])

_ERRORS = (errors.NotAuthenticated, errors.StoreUnavailable)
_NAMES = Field(description="Class numbers and names.", examples=[{"0": "qr_code"}])


class Version(BaseModel):
    """One version of a model, which workers serve or have served last."""

    version: str = Field(description="SHA-256 of the weights.")
    short: str = Field(description=f"Its first {SHORT_VERSION} digits.")
    task: str = Field(examples=["detect"])
    names: dict[str, str] = _NAMES
    runtimes: list[str] = Field(description="What runs it now.", examples=[["openvino"]])
    workers: list[str] = Field(description="Who serves it now.", examples=[["celery@host/4711"]])
    ready_processes: int


class ServedModel(ModelQueue):
    """`task` and `names` are those of the version that was announced last; null before one is."""

    task: str | None
    names: dict[str, str] | None = _NAMES
    versions: list[Version]


class Models(BaseModel):
    models: list[ServedModel]


class Description(BaseModel):
    model: str = Field(examples=["demo"])
    task: str = Field(examples=["detect"])
    names: dict[str, str] = _NAMES


@router.get(
    "/models",
    summary="The models, who serves them and what waits for them",
    dependencies=[Depends(authenticate)],
    responses=responses(*_ERRORS),
)
async def get_models(request: Request) -> Models:
    store = services_of(request).store
    queue = await store.queue(descriptions=True)
    default = store.default_model(queue)
    return Models(models=[_served(model, queue, default) for model in queue.models.values()])


@router.get(
    "/models/{name}",
    summary="One model",
    dependencies=[Depends(authenticate)],
    responses=responses(*_ERRORS, errors.ModelNotFound),
)
async def get_model(request: Request, name: str) -> ServedModel:
    store = services_of(request).store
    queue = await store.queue(descriptions=True)
    state = queue.models[store.model_name(name, queue)]
    return _served(state, queue, store.default_model(queue))


@router.get(
    "/model",
    summary="The default model and its classes",
    dependencies=[Depends(authenticate)],
    responses=responses(*_ERRORS, errors.ModelNotFound, errors.NoWorkerReady),
)
async def get_default_model(request: Request) -> Description:
    store = services_of(request).store
    queue = await store.queue(descriptions=True)
    model = queue.models[store.model_name("", queue)]
    if not model.versions:
        raise errors.NoWorkerReady("No worker has loaded its model yet.", retry_after_seconds=5)
    return Description(model=model.name, **model.versions[0].description)


def _served(model: ModelState, queue: QueueState, default: str) -> ServedModel:
    latest = model.versions[0].description if model.versions else {"task": None, "names": None}
    versions = []
    for version in model.versions:
        reports = {
            name: report
            for name, report in queue.workers.items()
            if report.get("models", {}).get(model.name) == version.version
        }
        versions.append(
            Version(
                version=version.version,
                short=version.version[:SHORT_VERSION],
                **version.description,
                runtimes=sorted({report["runtimes"][model.name] for report in reports.values()}),
                workers=sorted(reports),
                ready_processes=sum(report["ready"] for report in reports.values()),
            )
        )
    return ServedModel(
        **ModelQueue.of(model, default).model_dump(),
        **latest,
        versions=versions,
    )
