"""The Celery task `yolo.detect`: takes a message and runs its job."""

from __future__ import annotations

import base64
import re
from typing import Any

from celery import Task, shared_task

from shared.errors import InvalidTask, JobError, UploadError
from shared.image_header import check_file
from shared.job.keys import TASK_NAME
from shared.job.record import DetectParameters, NewJob
from shared.tiling import parts_of
from worker.process import child
from worker.process.child import PoolProcess

_PLAIN_ID = re.compile(r"[0-9A-Za-z._-]+")


class DetectTask(Task):  # type: ignore[misc]
    Request = "worker.celery_ext.crashed_process:JobRequest"

    def on_failure(self, exc: Exception, task_id: str, *_: Any) -> None:
        """Answer a call that Celery itself could not make, where its producer waits."""
        if isinstance(exc, JobError) or not child.is_pool_process():
            return  # the parent ends attempts of processes that died: celery_ext/crashed_process.py
        store = child.current().store
        if not store.exists(task_id):
            store.refuse(task_id, InvalidTask(f"The inline task cannot be run: {exc}"))


@shared_task(
    bind=True,
    base=DetectTask,
    name=TASK_NAME,
    # The result is committed with the job's state, under the attempt's lease; Celery's own write
    # would come after it and unchecked. A caller without a gateway still gets it from Celery.
    ignore_result=True,
    throws=(JobError,),
)
def detect(self: Any, /, *arguments: Any, **parameters: Any) -> dict[str, Any]:
    """Run the job whose id is this task's id.

    A producer without a gateway (`celery call`, another language) passes the file inline: `image`
    as Base64, and as keyword arguments `model` and the parameters of `DetectParameters`.
    """
    process = child.current()
    task_id: str = self.request.id
    if arguments or parameters:
        # What an OpenTelemetry-instrumented producer puts into its message's headers.
        traceparent = str(self.request.get("traceparent") or "")[:64]
        _adopt(process, task_id, arguments, parameters, traceparent)
    if process.settings.micro_batch_jobs > 1:
        from worker.batch import run_in_batch

        return run_in_batch(process, task_id)
    from worker.job import run_job

    return run_job(process, task_id)


def _adopt(
    process: PoolProcess,
    task_id: str,
    arguments: tuple[Any, ...],
    parameters: dict[str, Any],
    traceparent: str,
) -> None:
    """Give an inline task a record of its own, so that it is counted, bounded and recovered like
    every other job. Raises `InvalidTask`."""
    store = process.store
    if store.exists(task_id):
        return
    try:
        if "#" in task_id:
            raise ValueError("a task's id must not have # in it, as those of parts of jobs do")
        model = _known_model(process, parameters.pop("model", ""))
        content = _inline_image(*arguments, image=parameters.pop("image", None))
        checked = DetectParameters.model_validate(parameters)
        header = check_file(content, max_pixels=process.settings.max_image_pixels)
        tiling = checked.tiling(*header.upright_size, process.settings.max_tiles)
    except (UploadError, TypeError, ValueError) as error:  # pydantic's is a ValueError
        refusal = InvalidTask(f"The inline task cannot be run: {error}")
        store.refuse(task_id, refusal)
        raise refusal from error
    job = NewJob(
        owner="celery",
        model=model,
        image=content,
        content_type=header.content_type,
        width=header.width,
        height=header.height,
        parameters=checked,
        task_id=task_id,
        traceparent=traceparent,
        # Scripts look for ids in messages, where JSON writes some characters otherwise.
        parts=parts_of(tiling, checked.imgsz) if _PLAIN_ID.fullmatch(task_id) else 1,
    )
    store.accept(job, adopt=True)


def _known_model(process: PoolProcess, name: Any) -> str:
    """Raises `ValueError` if no worker serves it."""
    name = name or process.settings.default_model or next(iter(process.detectors))
    if name not in process.detectors and not process.store.knows_model(str(name)):
        raise ValueError(f"there is no model {name!r}")
    return str(name)


def _inline_image(*arguments: Any, image: Any) -> bytes:
    """Raises `TypeError` or `ValueError`."""
    given = [*arguments, *([] if image is None else [image])]
    if len(given) != 1 or not isinstance(given[0], str):
        raise TypeError("pass one image, as Base64 text, in `image`")
    return base64.b64decode(given[0], validate=True)
