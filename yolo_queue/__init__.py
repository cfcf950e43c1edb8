"""A typed Python client of yolo-queue, synchronous (`Client`) and asynchronous (`AsyncClient`).

    from yolo_queue import Client

    with Client("http://127.0.0.1:8000") as queue:
        job = queue.predict("photo.jpg").wait()
        for detection in job.detections:
            print(detection.name, detection.confidence, detection.box)
        job.save_image("annotated.jpg")

It needs httpx and Pillow, and no part of the server.
"""

from yolo_queue.client.async_client import AsyncClient, AsyncJob
from yolo_queue.client.errors import (
    ApiError,
    InvalidRequest,
    JobAlreadyFinished,
    JobFailed,
    JobNotFinished,
    JobNotFound,
    ModelNotFound,
    NotAuthenticated,
    TooManyRequests,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from yolo_queue.client.flows import Parameters
from yolo_queue.client.image_source import ImageSource
from yolo_queue.client.job_fields import Box, Detection, JobFields, Outcome, Tiles
from yolo_queue.client.service_state import ModelState, ModelVersion, QueueState, WorkerState
from yolo_queue.client.sync_client import Client, Job

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
    "ModelNotFound",
    "ModelState",
    "ModelVersion",
    "NotAuthenticated",
    "Outcome",
    "Parameters",
    "QueueState",
    "Tiles",
    "TooManyRequests",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
    "WorkerState",
]
