"""What a job is: its states, its parameters and its record. Knows nothing of Redis or HTTP."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.tiling import MAX_TILE, MIN_TILE, Tiling, tiling_of


class JobState(StrEnum):
    """States of a job; the last four are terminal and reached exactly once."""

    QUEUED = "queued"
    """Accepted and stored; no worker has it."""
    PROCESSING = "processing"
    """A worker has it, under a lease."""
    COMPLETED = "completed"
    """The result is stored."""
    FAILED = "failed"
    """Will not be tried again; the error says why."""
    CANCELLED = "cancelled"
    """Cancelled before it was committed."""
    EXPIRED = "expired"
    """Waited longer than `MAX_QUEUE_SECONDS`, or lost its worker and no other came for as long."""

    @property
    def terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.PROCESSING)


class DetectParameters(BaseModel):
    """What a client may choose about a prediction; names and meanings are Ultralytics' own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conf: float = Field(0.25, ge=0, le=1, description="Least confidence of a detection, 0-1.")
    iou: float = Field(0.7, ge=0, le=1, description="IoU above which overlapping boxes are merged.")
    imgsz: int = Field(
        640, ge=32, le=1920, description="Longer side of the network's input in pixels."
    )
    max_det: int = Field(300, ge=1, le=3000, description="Detections at most.")
    classes: tuple[int, ...] | None = Field(
        None, max_length=1000, description="Class numbers to keep; all by default."
    )
    tile: Literal["auto"] | int | None = Field(
        None,
        description="Cut the picture into overlapping tiles of so many pixels (256 to 2048), and "
        "detect in each of them as well as in the whole; `auto`: as large as the network's input.",
    )
    overlap: float = Field(
        0.2, ge=0, le=0.5, description="Share of a tile that its neighbours have as well."
    )
    annotate: bool = Field(True, description="Whether to draw and return the annotated picture.")

    def as_json(self) -> str:
        """JSON text. Without tiles as it was before there were any: workers of an earlier version
        refuse parameters that they do not know."""
        return self.model_dump_json(exclude={"tile", "overlap"} if self.tile is None else None)

    @field_validator("tile", mode="before")
    @classmethod
    def _is_tile(cls, value: Any) -> Any:
        """One message, where Pydantic would have one for each type."""
        if value is None or value == "auto":
            return value
        if str(value).isdecimal() and MIN_TILE <= int(value) <= MAX_TILE:
            return int(value)
        raise ValueError(f"use `auto`, or a side of {MIN_TILE} to {MAX_TILE} pixels")

    def tiling(self, width: int, height: int, max_tiles: int) -> Tiling | None:
        """How to cut a picture of this size in pixels; None without `tile`. Raises
        `TooManyTiles`."""
        if self.tile is None:
            return None
        return tiling_of(
            width,
            height,
            tile=self.tile,
            overlap=self.overlap,
            imgsz=self.imgsz,
            max_tiles=max_tiles,
        )


def new_job_id() -> str:
    """An unguessable id: 128 random bits in a form that URLs and Celery take (a UUID's shape)."""
    bits = secrets.token_hex(16)
    return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be accepted. `width` and `height`: of the stored image, in pixels."""

    owner: str
    model: str
    image: bytes
    content_type: str
    width: int
    height: int
    parameters: DetectParameters
    task_id: str = field(default_factory=new_job_id)
    idempotency_key: str = ""
    fingerprint: str = ""
    webhook_url: str = ""
    traceparent: str = ""
    parts: int = 1
    """In how many parts it is done (`shared.tiling.parts_of`)."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the store knows it. Times are milliseconds since the epoch on Redis' clock."""

    task_id: str
    state: JobState
    owner: str
    model: str
    created_ms: int
    attempts: int
    size_bytes: int
    content_type: str
    parameters: dict[str, Any]
    started_ms: int | None = None
    finished_ms: int | None = None
    position: int | None = None
    eta_ms: int | None = None
    error: dict[str, Any] | None = None
    traceparent: str = ""
    parts: int = 1
    """In how many parts it is done; of a part's record, how many there are."""

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> JobRecord:
        """From the hash in Redis (the key `{q}:job:{id}` in keys.py)."""
        text = {key.decode(): value.decode() for key, value in fields.items()}

        def number(name: str) -> int | None:
            return int(text[name]) if name in text else None

        return cls(
            task_id=text["task_id"],
            state=JobState(text["state"]),
            owner=text["owner"],
            model=text.get("model", ""),  # of a job from before there were several
            created_ms=int(text["created_ms"]),
            attempts=int(text["attempts"]),
            size_bytes=int(text["bytes"]),
            content_type=text["content_type"],
            parameters=json.loads(text["params"]),
            started_ms=number("started_ms"),
            finished_ms=number("finished_ms"),
            position=number("position"),
            eta_ms=number("eta_ms"),
            error=json.loads(text["error"]) if "error" in text else None,
            traceparent=text.get("traceparent", ""),
            parts=int(text.get("parts", 1)),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to work on a job. `number` is a fencing token: a commit under an older number does
    nothing."""

    task_id: str
    number: int
    record: JobRecord
    image: bytes | None = None
    """The upload, if it came with the claim."""
    claimed_at: float = field(default_factory=time.monotonic)
    """By this process' monotonic clock: how long it runs must not depend on Redis' clock."""

    @property
    def run_us(self) -> int:
        """Microseconds since the claim."""
        return int((time.monotonic() - self.claimed_at) * 1e6)
