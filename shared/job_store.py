"""Owns the workers' side of a job's life: claim, renew, finish, abandon, and the dead letters.

Every transition is one Lua script (`lua/`), so it happens whole or not at all, and a transition
that lost a race does nothing. Keys: job_keys.py. The gateway's side is job_intake.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared.errors import AttemptsExhausted, JobError
from shared.job_keys import dead_image_key, image_key, result_key, script
from shared.jobs import Attempt, DetectParameters, JobRecord, JobState, NewJob
from shared.redis_client import UNAVAILABLE, connect
from shared.settings import Settings
from shared.task_message import task_message

HEARTBEAT_SECONDS = 2.0
"""How often a worker renews its leases. Three missed ones count as absence."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, with what is needed to look into it. Times in epoch milliseconds."""

    task_id: str
    died_ms: int
    size_bytes: int
    content_type: str
    parameters: dict[str, Any]
    error: dict[str, Any]
    history: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a heartbeat found abandoned and took care of."""

    requeued: int = 0
    dead: int = 0
    republished: int = 0


class JobStore:
    """Blocking; one instance a process (make it after the fork)."""

    def __init__(self, settings: Settings, *, timeout_seconds: float = 5.0) -> None:
        self._settings = settings
        self._queue = settings.yolo_queue
        # Any: redis-py types every answer as a union of what all versions could give.
        self.redis: Any = connect(settings.redis_url, timeout_seconds=timeout_seconds)
        self._images: Any = (
            connect(settings.image_redis_url, timeout_seconds=timeout_seconds)
            if settings.image_redis_url
            else self.redis
        )
        self._scripts = {
            name: self.redis.register_script(script(name))
            for name in (
                "accept",
                "claim",
                "claim_more",
                "finish",
                "abandon",
                "heartbeat",
                "leave",
                "republish",
                "queue",
            )
        }

    def _run(self, name: str, *args: Any) -> Any:
        return self._scripts[name](keys=[self._queue], args=list(args))

    # -- an attempt ---------------------------------------------------------------------------

    def claim(self, task_id: str, worker: str) -> Attempt | str:
        """Start an attempt, or say why not: `unknown`, `running` (elsewhere) or `finished`."""
        settings = self._settings
        status, *rest = self._run(
            "claim",
            task_id,
            worker,
            int(settings.lease_seconds * 1000),
            settings.result_ttl_seconds,
            settings.max_queue_seconds * 1000,
            settings.record_ttl_seconds,
        )
        if status != b"claimed":
            return str(status.decode())
        return _attempt(rest[1])

    def claim_more(self, attempt: Attempt, worker: str, wanted: int) -> list[Attempt]:
        """Start the first attempts of up to `wanted` queued jobs that can share a forward pass with
        this one: the same parameters, from all lanes in turn. None if the attempt has lost its job.

        Not safe to repeat: what an answer that was lost had claimed waits for its lease to run out.
        """
        settings = self._settings
        mates = self._run(
            "claim_more",
            attempt.task_id,
            attempt.number,
            worker,
            int(settings.lease_seconds * 1000),
            settings.result_ttl_seconds,
            settings.max_queue_seconds * 1000,
            settings.record_ttl_seconds,
            wanted,
            settings.max_image_pixels,
        )
        return [_attempt(flat) for flat in mates]

    def adopt(self, job: NewJob) -> None:
        """Make a record for a task that came without a gateway, its image inline."""
        settings = self._settings
        self._images.set(
            image_key(self._queue, job.task_id), job.image, ex=settings.record_ttl_seconds
        )
        self._run("accept", *accept_arguments([job], settings, adopt=True))

    def refuse(self, task_id: str, error: JobError) -> None:
        """Answer an inline task that cannot become a job, where its producer waits for it."""
        meta, key = failure_meta(task_id, error), result_key(task_id)
        self.redis.set(key, meta, ex=self._settings.result_ttl_seconds, nx=True)
        self.redis.publish(key, meta)

    def exists(self, task_id: str) -> bool:
        """Whether there is a record, in whatever state."""
        return bool(self.redis.exists(f"{self._queue}:job:{task_id}"))

    def image(self, task_id: str) -> bytes | None:
        """The upload as it came, or None if its key is gone."""
        value = self._images.get(image_key(self._queue, task_id))
        return value if isinstance(value, bytes) else None

    def complete(self, attempt: Attempt, celery_meta: bytes) -> bool:
        """Commit a result. False if the attempt no longer holds the job: nothing was written."""
        return self._finish(attempt, JobState.COMPLETED, celery_meta, None)

    def fail(self, attempt: Attempt, celery_meta: bytes, error: JobError) -> bool:
        """Commit a failure that trying again cannot mend. False as with `complete`."""
        return self._finish(attempt, JobState.FAILED, celery_meta, error)

    def _finish(
        self, attempt: Attempt, state: JobState, celery_meta: bytes, error: JobError | None
    ) -> bool:
        committed = self._run(
            "finish",
            attempt.task_id,
            attempt.number,
            state.value,
            celery_meta,
            json.dumps(error.as_dict()) if error else "",
            self._settings.result_ttl_seconds,
        )
        if committed == b"committed" and self._images is not self.redis:
            # Committed is committed; an image that stays behind goes with its time to live.
            with suppress(*UNAVAILABLE):
                self._images.unlink(image_key(self._queue, attempt.task_id))
        return bool(committed == b"committed")

    def abandon(
        self, task_id: str, reason: str, *, attempt: int | None = None, worker: str = ""
    ) -> str:
        """End an attempt that brought no outcome, named by its number or by its worker.

        `reason` is `worker_lost`, `timeout` or `internal`. Returns `requeued`, `dead`, or `stale`
        if the attempt no longer held the job.
        """
        settings = self._settings
        error = AttemptsExhausted(reason, settings.max_attempts)
        status, *rest = self._run(
            "abandon",
            task_id,
            "" if attempt is None else attempt,
            worker,
            reason,
            task_message(task_id, self._queue),
            settings.max_attempts,
            settings.record_ttl_seconds,
            settings.result_ttl_seconds,
            failure_meta(task_id, error),
            json.dumps(error.as_dict()),
            settings.dead_ttl_seconds,
            settings.dead_max_jobs,
            settings.dead_max_bytes,
        )
        if status == b"dead" and self._images is not self.redis:
            source, letter = image_key(self._queue, task_id), dead_image_key(self._queue, task_id)
            if self._images.exists(source):
                self._images.rename(source, letter)
                self._images.expire(letter, settings.dead_ttl_seconds)
            for evicted in rest[0]:
                self._images.unlink(dead_image_key(self._queue, evicted.decode()))
        return str(status.decode())

    # -- a worker -----------------------------------------------------------------------------

    def heartbeat(self, worker: str, report: dict[str, Any], running: Iterable[str]) -> Recovered:
        """Renew the leases of `running`, report, and take care of what nobody holds any more."""
        settings = self._settings
        lost, vanished = self._run(
            "heartbeat",
            worker,
            json.dumps(report),
            int(settings.lease_seconds * 1000),
            int(HEARTBEAT_SECONDS * 1000),
            settings.result_ttl_seconds,
            settings.max_queue_seconds * 1000,
            settings.record_ttl_seconds,
            *running,
        )
        outcomes = [
            self.abandon(task_id.decode(), "worker_lost", attempt=int(number))
            for task_id, number in lost
        ]
        republished = sum(
            self._run("republish", task_id, task_message(task_id.decode(), self._queue))
            for task_id, _ in vanished
        )
        return Recovered(outcomes.count("requeued"), outcomes.count("dead"), republished)

    def describe_model(self, model: str, task: str, names: dict[int, str]) -> None:
        """Tell gateways which model is served, once it is loaded."""
        text = json.dumps({"model": model, "task": task, "names": names})
        self.redis.set(f"{self._queue}:model", text)

    def leave(self, worker: str) -> None:
        """Take the worker off the list at once, rather than after three missed heartbeats."""
        self._run("leave", worker)

    # -- dead letters -------------------------------------------------------------------------

    def dead_letters(self) -> list[DeadLetter]:
        """All of them, the newest first."""
        ids = self.redis.zrevrange(f"{self._queue}:dead", 0, -1)
        letters = (self.dead_letter(task_id.decode()) for task_id in ids)
        return [letter for letter in letters if letter is not None]

    def dead_letter(self, task_id: str) -> DeadLetter | None:
        fields = self.redis.hgetall(f"{self._queue}:dead:{task_id}")
        if not fields:
            return None
        return DeadLetter(
            task_id=task_id,
            died_ms=int(fields[b"died_ms"]),
            size_bytes=int(fields[b"bytes"]),
            content_type=fields[b"content_type"].decode(),
            parameters=json.loads(fields[b"params"]),
            error=json.loads(fields[b"error"]),
            history=json.loads(fields[b"history"]),
        )

    def dead_image(self, task_id: str) -> bytes | None:
        value = self._images.get(dead_image_key(self._queue, task_id))
        return value if isinstance(value, bytes) else None

    def retry_dead(self, task_id: str) -> str | None:
        """Submit a dead letter's image again as a new job. A job ends once, so it gets a new id.

        Returns the id, or None if the letter or its image is gone.
        """
        fields = self.redis.hgetall(f"{self._queue}:dead:{task_id}")
        image = self.dead_image(task_id)
        if not fields or image is None:
            return None
        settings = self._settings
        job = NewJob(
            owner=fields[b"owner"].decode(),
            image=image,
            content_type=fields[b"content_type"].decode(),
            width=0,
            height=0,
            parameters=DetectParameters.model_validate_json(fields[b"params"]),
        )
        self._images.set(image_key(self._queue, job.task_id), image, ex=settings.record_ttl_seconds)
        status, _ = self._run("accept", *accept_arguments([job], settings))
        if status != b"accepted":
            self._images.unlink(image_key(self._queue, job.task_id))
            return None
        self.purge_dead([task_id])
        return job.task_id

    def purge_dead(self, task_ids: Iterable[str]) -> int:
        """Delete dead letters; returns how many there were."""
        count = 0
        for task_id in task_ids:
            count += int(self.redis.zrem(f"{self._queue}:dead", task_id))
            self.redis.hdel(f"{self._queue}:dead-bytes", task_id)
            self.redis.unlink(f"{self._queue}:dead:{task_id}")
            self._images.unlink(dead_image_key(self._queue, task_id))
        return count


def _attempt(flat: Sequence[bytes]) -> Attempt:
    """From a record as Redis gives it: field, value, field, value ..."""
    record = JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
    return Attempt(record.task_id, record.attempts, record)


def accept_arguments(
    jobs: Sequence[NewJob], settings: Settings, *, adopt: bool = False
) -> list[Any]:
    """Arguments of accept.lua for jobs of one owner, in its order.

    `adopt`: Celery has delivered the task already, so it needs no message.
    """
    first = jobs[0]
    arguments: list[Any] = [
        first.owner,
        settings.record_ttl_seconds,
        settings.result_ttl_seconds,
        settings.max_queue_seconds * 1000,
        settings.max_queue_jobs,
        settings.max_queue_bytes,
        first.idempotency_key,
        first.fingerprint,
    ]
    for job in jobs:
        arguments += [
            job.task_id,
            len(job.image),
            job.parameters.model_dump_json(),
            job.width,
            job.height,
            job.content_type,
            "" if adopt else task_message(job.task_id, settings.yolo_queue, job.traceparent),
            job.webhook_url,
            job.traceparent,
        ]
    return arguments


def failure_meta(task_id: str, error: JobError) -> bytes:
    """What Celery's result backend holds for a failed task, so that `AsyncResult` raises it."""
    return json.dumps(
        {
            "status": "FAILURE",
            "result": {
                "exc_type": type(error).__name__,
                "exc_message": [error.message],
                "exc_module": type(error).__module__,
            },
            "traceback": None,
            "children": [],
            "task_id": task_id,
        }
    ).encode()


_META_HEAD = b'{"status":"SUCCESS","result":'
_META_TAIL = b',"traceback":null,"children":[],"task_id":"%b"}'


def success_meta(task_id: str, result: dict[str, Any], jpeg: bytes | None = None) -> bytes:
    """What Celery's result backend holds for a finished task. `jpeg` becomes the result's `image`,
    a data URL; it comes last, so that what else there is can be read without it."""
    parts = [_META_HEAD, json.dumps(result).encode()]
    if jpeg is not None:
        # Not through json: there is nothing to escape in half a megabyte of Base64.
        parts[1] = parts[1][:-1]
        parts += [b', "image": "data:image/jpeg;base64,', base64.b64encode(jpeg), b'"}']
    return b"".join([*parts, _META_TAIL % task_id.encode()])


def result_of(task_id: str, meta: bytes) -> bytes:
    """The result in a `success_meta`, as the JSON text it is. Parsing and writing again a picture
    of half a megabyte would be most of what the gateway does."""
    tail = _META_TAIL % task_id.encode()
    if meta.startswith(_META_HEAD) and meta.endswith(tail):
        return meta[len(_META_HEAD) : -len(tail)]
    return json.dumps(json.loads(meta)["result"]).encode()  # Celery's own writing
