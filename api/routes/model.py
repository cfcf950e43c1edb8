"""Serves `GET /model`: the name, task and classes of the model."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from api.auth import authenticate
from api.problems import responses
from api.services import services_of
from shared import errors

router = APIRouter(tags=["service"])


class Model(BaseModel):
    model: str = Field(examples=["demo.pt"])
    task: str = Field(examples=["detect"])
    names: dict[str, str] = Field(
        description="Class numbers and names.", examples=[{"0": "qr_code"}]
    )


@router.get(
    "/model",
    summary="The model and its classes",
    dependencies=[Depends(authenticate)],
    responses=responses(errors.NotAuthenticated, errors.StoreUnavailable, errors.NoWorkerReady),
)
async def get_model(request: Request) -> Model:
    described = await services_of(request).store.model()
    if described is None:
        raise errors.NoWorkerReady("No worker has loaded its model yet.", retry_after_seconds=5)
    return Model(**described)
