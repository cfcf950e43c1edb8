"""A typed Python client of yolo-queue, synchronous (`Client`) and asynchronous (`AsyncClient`).

    from client import Client

    with Client("http://127.0.0.1:8000") as queue:
        job = queue.predict("photo.jpg").wait()
        for detection in job.detections:
            print(detection.name, detection.confidence, detection.box)
        job.save_image("annotated.jpg")

Needs httpx and Pillow, nothing of the server.
"""

from client.async_client import AsyncClient, AsyncJob
from client.errors import (
    ApiError,
    InvalidRequest,
    JobAlreadyFinished,
    JobFailed,
    JobNotFinished,
    JobNotFound,
    NotAuthenticated,
    TooManyRequests,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from client.image_source import ImageSource
from client.job_fields import Box, Detection, JobFields, Outcome
from client.requests import Parameters
from client.service_state import ModelState, QueueState, WorkerState
from client.sync_client import Client, Job

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJob",
    "Box",
    "Client",
    "Detection",
    "ImageSource",
    "InvalidRequest",
    "Job",
    "JobAlreadyFinished",
    "JobFailed",
    "JobFields",
    "JobNotFinished",
    "JobNotFound",
    "ModelState",
    "NotAuthenticated",
    "Outcome",
    "Parameters",
    "QueueState",
    "TooManyRequests",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
    "WorkerState",
]
