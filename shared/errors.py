"""The tree of errors. Every error has a stable `code` and says whether trying again can help.

Nothing here knows HTTP; `api/problems.py` maps each class to a status.
"""

from __future__ import annotations


class YoloQueueError(Exception):
    """Base of every error the project raises on purpose."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def as_dict(self) -> dict[str, object]:
        """The `error` object of a failed job."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


# -- the upload -------------------------------------------------------------------------------


class UploadError(YoloQueueError):
    """The upload cannot become a job."""


class MissingImage(UploadError):
    code = "image_missing"


class UnsupportedMediaType(UploadError):
    code = "unsupported_media_type"


class UploadTooLarge(UploadError):
    code = "upload_too_large"


class InvalidImage(UploadError):
    """Looks like an image of a supported type, but is broken."""

    code = "invalid_image"


class TooManyPixels(UploadError):
    code = "too_many_pixels"


class TooManyTiles(UploadError):
    """The tiles that the request asks for would cut the picture into more than `MAX_TILES`."""

    code = "too_many_tiles"


class InvalidParameter(YoloQueueError):
    code = "invalid_parameter"


class IdempotencyConflict(YoloQueueError):
    code = "idempotency_conflict"


# -- the client -----------------------------------------------------------------------------------


class NotAuthenticated(YoloQueueError):
    code = "not_authenticated"


class TooManyRequests(YoloQueueError):
    code = "too_many_requests"
    retryable = True


# -- the queue ----------------------------------------------------------------------------------


class JobNotFound(YoloQueueError):
    code = "job_not_found"


class JobNotFinished(YoloQueueError):
    """The job has no picture or result yet, or never will."""

    code = "job_not_completed"


class JobAlreadyFinished(YoloQueueError):
    code = "job_already_finished"


class ModelNotFound(YoloQueueError):
    """No worker has ever announced a model of this name."""

    code = "model_not_found"


class QueueFull(YoloQueueError):
    code = "queue_full"
    retryable = True


class GatewayBusy(YoloQueueError):
    """Too many uploads are in the gateway's memory at the moment."""

    code = "gateway_busy"
    retryable = True


class StoreUnavailable(YoloQueueError):
    """Redis does not answer, is full, or refuses writes."""

    code = "redis_unavailable"
    retryable = True


class UploadTooSlow(UploadError):
    """The body of the request arrives too slowly, or not at all."""

    code = "upload_too_slow"
    retryable = True


class BackgroundTaskDown(YoloQueueError):
    """A background task of the gateway has failed and is about to be restarted."""

    code = "background_task_down"
    retryable = True


class NoWorkerReady(YoloQueueError):
    code = "no_worker_ready"
    retryable = True


# -- the job ------------------------------------------------------------------------------------


class JobError(YoloQueueError):
    """An attempt ended with an error that another attempt would not change."""


class UndecodableImage(JobError):
    code = "image_undecodable"


class ImageMissingInStore(JobError):
    """The upload is gone from Redis: evicted, deleted or expired."""

    code = "image_lost"
    retryable = True


class InvalidTask(JobError):
    """An inline task, which no gateway has checked, has invalid arguments."""

    code = "invalid_task"


class UndeliverableMessage(JobError):
    """A broker message that cannot become a job: written by hand, or by a broken producer."""

    code = "undeliverable"


class AttemptsExhausted(JobError):
    """`MAX_ATTEMPTS` attempts brought no outcome; `reason` says how the last one ended."""

    retryable = True

    def __init__(self, reason: str, attempts: int) -> None:
        cause = {
            "worker_lost": "its worker process died",
            "timeout": "it ran longer than the time limit",
        }.get(reason, "an unexpected error occurred (see the worker's log)")
        super().__init__(f"Given up after {attempts} attempts: in the last one {cause}.")
        self.code = reason


# -- starting up --------------------------------------------------------------------------------


class StartupError(YoloQueueError):
    """A process cannot start with its settings; the message says what to do."""

    code = "startup"


class InvalidSettings(StartupError):
    code = "invalid_settings"


class ModelUnavailable(StartupError):
    code = "model_unavailable"
