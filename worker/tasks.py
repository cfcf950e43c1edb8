"""Owns the Celery task `yolo.detect`: takes a message, hands it to the runner."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from celery import Task, shared_task
from pydantic import ValidationError

from shared.errors import InvalidTask, JobError, UploadError
from shared.image_header import read_header
from shared.job_keys import TASK_NAME
from shared.jobs import DetectParameters, NewJob
from worker import pool_process
from worker.patience import with_patience


class DetectTask(Task):  # type: ignore[misc]
    Request = "worker.request:JobRequest"


@shared_task(
    bind=True,
    base=DetectTask,
    name=TASK_NAME,
    # The result is committed with the job's state, under the attempt's lease; Celery's own write
    # would come after it and unchecked. A caller without a gateway still gets it from Celery.
    ignore_result=True,
    throws=(JobError,),
)
def detect(self: Any, image: str | None = None, **parameters: Any) -> dict[str, Any]:
    """Run the job whose id is this task's id.

    A producer without a gateway (`celery call`, another language) passes the file inline: `image`
    as Base64, and the parameters of `DetectParameters` as keyword arguments.
    """
    process = pool_process.current()
    task_id: str = self.request.id
    if image is not None:
        # What an OpenTelemetry-instrumented producer puts into its message's headers.
        traceparent = str(self.request.get("traceparent") or "")[:64]
        _adopt(process, task_id, image, parameters, traceparent)
    if process.settings.micro_batch_jobs > 1:
        from worker.micro_batch import run_with_mates

        return run_with_mates(process, task_id)
    from worker.job_runner import run_job

    return run_job(process, task_id)


def _adopt(
    process: pool_process.PoolProcess,
    task_id: str,
    image: str,
    parameters: dict[str, Any],
    traceparent: str,
) -> None:
    """Give an inline task a record of its own, so that it is counted, bounded and recovered like
    every other job. Raises `InvalidTask`."""
    if with_patience(lambda: process.store.exists(task_id)):
        return
    try:
        content = base64.b64decode(image, validate=True)
        checked = DetectParameters.model_validate(parameters)
        header = read_header(content, max_pixels=process.settings.max_image_pixels)
    except (binascii.Error, UploadError, ValidationError) as error:
        refusal = InvalidTask(f"The inline task cannot be run: {error}")
        with_patience(lambda: process.store.refuse(task_id, refusal))
        raise refusal from error
    job = NewJob(
        owner="celery",
        image=content,
        content_type=header.content_type,
        width=header.width,
        height=header.height,
        parameters=checked,
        task_id=task_id,
        traceparent=traceparent,
    )
    with_patience(lambda: process.store.accept(job, adopt=True))
