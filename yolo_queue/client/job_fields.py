"""The fields of a job object, typed. Does not fetch anything."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from yolo_queue.client.errors import JobFailed, JobNotFinished
from yolo_queue.client.image_source import ImageSource

ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
"""The final states."""

_WHY = {
    "cancelled": "The job was cancelled.",
    "expired": "The job waited longer than the service lets jobs wait.",
}


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels of the original image, upright (EXIF orientation applied), from the top left."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a picture was cut. `count` is 0 if it fitted into one tile; `size`: longest side of a
    tile in pixels of the original; `overlap`: least share that neighbours have in common."""

    count: int
    size: int
    overlap: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected object. `confidence` is 0-1. `box` is None for a classification; for an oriented
    box it is the upright rectangle around its corners. `raw` is Ultralytics' own entry, with
    `segments`, `keypoints` or corners if the model's task has them."""

    name: str
    class_id: int
    confidence: float
    box: Box | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Detection:
        box = None
        if corners := entry.get("box"):
            xs = [float(value) for key, value in corners.items() if key.startswith("x")]
            ys = [float(value) for key, value in corners.items() if key.startswith("y")]
            box = Box(min(xs), min(ys), max(xs), max(ys))
        return cls(
            name=str(entry["name"]),
            class_id=int(entry["class"]),
            confidence=float(entry.get("confidence") or 0.0),
            box=box,
            raw=entry,
        )


class JobFields:
    """A job as last fetched. `data` is the job object as the service sent it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} {self.status}>"

    @property
    def task_id(self) -> str:
        return str(self.data["task_id"])

    @property
    def status(self) -> str:
        """`queued`, `processing`, `completed`, `failed`, `cancelled` or `expired`."""
        return str(self.data["status"])

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def position(self) -> int | None:
        """While queued: 1 is next."""
        return self.data.get("position")

    @property
    def eta_seconds(self) -> float | None:
        """While queued: seconds until the result, estimated from the measured rate."""
        return self.data.get("eta_seconds")

    @property
    def attempts(self) -> int:
        return int(self.data["attempts"])

    @property
    def created_at(self) -> datetime:
        return datetime.fromisoformat(self.data["created_at"])

    @property
    def finished_at(self) -> datetime | None:
        text = self.data.get("finished_at")
        return datetime.fromisoformat(text) if text else None

    @property
    def timings_ms(self) -> Mapping[str, float]:
        """Milliseconds spent in `queue`, `decode`, `infer`, `draw` and `total`, once completed."""
        return self.data.get("timings_ms") or {}

    @property
    def error(self) -> JobFailed | None:
        """Why the job ended without a result; None if it has one or has not ended."""
        if not self.ended or self.status == "completed":
            return None
        error = self.data.get("error") or {}
        return JobFailed(
            self.task_id,
            str(error.get("code") or self.status),
            str(error.get("message") or _WHY.get(self.status, "The job failed.")),
            retryable=bool(error.get("retryable", False)),
        )

    @property
    def detections(self) -> list[Detection]:
        """In the service's order. Raises `JobFailed`, or `JobNotFinished` if it has not ended."""
        return [Detection.from_json(entry) for entry in self._result("detections")]

    @property
    def width(self) -> int:
        """Width of the original image in pixels, upright. Raises like `detections`."""
        return int(self._result("width"))

    @property
    def height(self) -> int:
        return int(self._result("height"))

    @property
    def tiles(self) -> Tiles | None:
        """How the picture was cut; None if the job asked for no tiles. Raises like `detections`."""
        tiles = self._result("tiles")
        return Tiles(tiles["count"], tiles["size"], tiles["overlap"]) if tiles else None

    @property
    def model(self) -> str:
        """Name of the model that it is for."""
        return str(self.data.get("model") or "")

    @property
    def model_version(self) -> str:
        """SHA-256 of the weights that made the result. Raises like `detections`."""
        return str(self._result("model_version"))

    @property
    def image(self) -> bytes:
        """The annotated picture, a JPEG. Raises like `detections`, and `JobNotFinished` if it was
        not requested (`annotate=False`)."""
        url = self._result("image")
        if not url:
            raise JobNotFinished(
                "The job has no picture: it was submitted with annotate=False.",
                code="job_not_completed",
            )
        return base64.b64decode(url.partition(",")[2])

    def save_image(self, path: str | Path) -> Path:
        """Write the annotated picture to `path`, and return the path. Raises like `image`."""
        path = Path(path)
        path.write_bytes(self.image)
        return path

    def _result(self, name: str) -> Any:
        if failure := self.error:
            raise failure
        if self.status != "completed":
            raise JobNotFinished(
                f"Job {self.task_id} is {self.status}; call wait() first.",
                code="job_not_completed",
                retryable=True,
            )
        return self.data.get(name)


J = TypeVar("J", bound=JobFields)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[J]):
    """What `map` made of one source. `job` has ended, or is None if it could not be submitted.
    `error` is a `JobFailed` if there is a job without a result."""

    index: int
    source: ImageSource
    job: J | None
    error: Exception | None

    @property
    def ok(self) -> bool:
        return self.error is None

    def result(self) -> J:
        """The completed job. Raises `error`."""
        if self.error is not None:
            raise self.error
        assert self.job is not None  # noqa: S101 - an outcome has a job or an error
        return self.job
