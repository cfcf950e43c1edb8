"""Describes a job as clients see it: the JSON object and its schema in `/docs`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.job.record import JobRecord, JobState


class Links(BaseModel):
    self: str = Field(examples=["/result/5a0c0c5e-8a55-4f3e-9d0b-2f1b7c1d9e10"])
    image: str
    events: str
    cancel: str


class JobFailure(BaseModel):
    """Why a job failed."""

    code: str = Field(examples=["image_undecodable"])
    message: str
    retryable: bool


class Box(BaseModel):
    """In pixels of the original image, EXIF orientation applied. Oriented boxes have 4 corners."""

    model_config = ConfigDict(extra="allow")
    x1: float
    y1: float
    x2: float
    y2: float


class Detection(BaseModel):
    """As in Ultralytics' `summary()`. Some tasks add `segments`, `keypoints` and others."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "name": "bus",
                    "class": 5,
                    "confidence": 0.88,
                    "box": {"x1": 22.8, "y1": 231.2, "x2": 805.0, "y2": 756.8},
                }
            ]
        },
    )
    name: str
    class_: int = Field(alias="class")
    confidence: float | None = None
    box: Box | None = None


class Timings(BaseModel):
    """In milliseconds. `total` is from acceptance to the finished picture."""

    queue: float
    decode: float
    infer: float
    draw: float
    total: float


class Tiles(BaseModel):
    """How the picture was cut. `count`: 0 if it fitted into one tile and went through whole."""

    count: int
    size: int = Field(description="Longest side of a tile in pixels of the original.")
    overlap: float = Field(description="Least share of a tile that its neighbour has as well.")


class Job(BaseModel):
    """A job. Fields that are not known yet, or do not apply to its status, are left out."""

    task_id: str = Field(examples=["5a0c0c5e-8a55-4f3e-9d0b-2f1b7c1d9e10"])
    status: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = Field(description="How often a worker has started it.", examples=[1])
    links: Links
    position: int | None = Field(None, description="While queued: 1 is next.")
    eta_seconds: float | None = Field(
        None,
        description="While queued: estimated time until the result, from the measured rate.",
    )
    error: JobFailure | None = None
    model: str = Field(description="Name of the model.", examples=["codes"])
    model_version: str | None = Field(None, description="SHA-256 of the weights that made this.")
    task: str | None = None
    width: int | None = Field(None, description="Width of the upright original image in pixels.")
    height: int | None = Field(None, description="Height of that image in pixels.")
    tiles: Tiles | None = Field(None, description="With `tile` alone.")
    detections: list[Detection] | None = None
    image: str | None = Field(
        None, description="The annotated picture as a JPEG data URL. Null with `annotate=false`."
    )
    timings_ms: Timings | None = None


def job_object(record: JobRecord, result: dict[str, Any] | None = None) -> dict[str, Any]:
    """The job object of a record, with its result if there is one."""
    base = f"/result/{record.task_id}"
    job: dict[str, Any] = {
        "task_id": record.task_id,
        "status": record.state.value,
        "created_at": rfc3339(record.created_ms),
        "attempts": record.attempts,
        "model": record.model,
        "links": {
            "self": base,
            "image": f"{base}/image",
            "events": f"{base}/events",
            "cancel": base,
        },
    }
    if record.started_ms is not None:
        job["started_at"] = rfc3339(record.started_ms)
    if record.finished_ms is not None:
        job["finished_at"] = rfc3339(record.finished_ms)
    if record.state is JobState.QUEUED:
        job["position"] = record.position
        if record.eta_ms is not None:
            job["eta_seconds"] = round(record.eta_ms / 1000, 2)
    if record.error is not None:
        job["error"] = record.error
    if result is not None:
        job.update(result)
    return job


def job_json(record: JobRecord, result: memoryview | None = None) -> bytes:
    """The job object as JSON text. `result`: the text of a JSON object, copied without parsing."""
    job = job_object(record)
    if result is None:
        return json.dumps(job).encode()
    del job["model"]  # the result has it
    return b"".join((json.dumps(job).encode()[:-1], b", ", result[1:]))


def rfc3339(epoch_ms: int) -> str:
    """UTC with milliseconds, e.g. `2026-01-31T12:00:00.123Z`."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
