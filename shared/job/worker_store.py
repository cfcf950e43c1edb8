"""Owns the workers' side of a job's life: claim, renew, finish, abandon.

Every transition is one Lua script (`lua/`), so it happens whole or not at all, and a transition
that lost a race does nothing. Keys: job_keys.py. The gateway's side is job_intake.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import AttemptsExhausted, JobError, UndeliverableMessage
from shared.job.celery_result import failure_meta
from shared.job.keys import dead_image_key, image_key, job_key, result_key, staged_key
from shared.job.message import first_message, task_message
from shared.job.record import Attempt, JobRecord, JobState, NewJob
from shared.job.scripts import LuaScripts
from shared.redis_access.client import UNAVAILABLE, connect
from shared.settings import Settings

STAGED_SECONDS = 60
"""How long a result may take from its being set to its commit, right behind it."""

HEARTBEAT_SECONDS = 2.0
"""How often a worker renews its leases. Three missed ones count as absence."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a heartbeat found abandoned and took care of."""

    requeued: int = 0
    dead: int = 0
    republished: int = 0


class WorkerStore:
    """Blocking; one instance a process (make it after the fork)."""

    def __init__(self, settings: Settings, *, timeout_seconds: float = 5.0) -> None:
        self._settings = settings
        self._queue = settings.yolo_queue
        # Any: redis-py types every answer as a union of what all versions could give.
        self.redis: Any = connect(settings.redis_url, timeout_seconds=timeout_seconds)
        self.images: Any = (
            connect(settings.image_redis_url, timeout_seconds=timeout_seconds)
            if settings.image_redis_url
            else self.redis
        )
        self._lua = LuaScripts(
            self.redis,
            self._queue,
            *("accept", "claim", "claim_more", "finish", "abandon"),
            *("heartbeat", "leave", "republish", "bury_message"),
        )

    # -- an attempt ---------------------------------------------------------------------------

    def claim(self, task_id: str, worker: str) -> Attempt | str:
        """Start an attempt, or say why not: `unknown`, `running` (elsewhere) or `finished`."""
        settings = self._settings
        here = self.images is self.redis
        (status, *rest), *image = self._lua.run_among(
            "claim",
            task_id,
            worker,
            int(settings.lease_seconds * 1000),
            settings.result_ttl_seconds,
            settings.max_queue_seconds * 1000,
            settings.record_ttl_seconds,
            after=[("GET", image_key(self._queue, task_id))] if here else [],
        )
        if status != b"claimed":
            return str(status.decode())
        return _attempt(rest[1], *image)

    def claim_more(self, attempt: Attempt, worker: str, wanted: int) -> list[Attempt]:
        """Start the first attempts of up to `wanted` queued jobs that can share a forward pass with
        this one: the same parameters, from all lanes in turn. None if the attempt has lost its job.

        Not safe to repeat: what an answer that was lost had claimed waits for its lease to run out.
        """
        settings = self._settings
        mates = self._lua.run(
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

    def accept(self, job: NewJob, *, adopt: bool = False) -> bool:
        """Store a job; False if the queue is full. `adopt`: Celery has delivered it already, with
        its image inline, so that it takes no place in the queue's bounds and needs no message."""
        key = image_key(self._queue, job.task_id)
        self.images.set(key, job.image, ex=self._settings.record_ttl_seconds)
        status, _ = self._lua.run("accept", *accept_arguments([job], self._settings, adopt=adopt))
        if status != b"accepted":
            self.images.unlink(key)
        return bool(status == b"accepted")

    def refuse(self, task_id: str, error: JobError) -> None:
        """Answer an inline task that cannot become a job, where its producer waits for it."""
        meta, key = failure_meta(task_id, error), result_key(task_id)
        self.redis.set(key, meta, ex=self._settings.result_ttl_seconds, nx=True)
        self.redis.publish(key, meta)

    def exists(self, task_id: str) -> bool:
        """Whether there is a record, in whatever state."""
        return bool(self.redis.exists(job_key(self._queue, task_id)))

    def image(self, task_id: str) -> bytes | None:
        """The upload as it came, or None if its key is gone."""
        value = self.images.get(image_key(self._queue, task_id))
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
        staged = staged_key(self._queue, attempt.task_id, attempt.number)
        _, committed = self._lua.run_among(
            "finish",
            attempt.task_id,
            attempt.number,
            state.value,
            staged,
            json.dumps(error.as_dict()) if error else "",
            self._settings.result_ttl_seconds,
            before=[("SET", staged, celery_meta, "EX", STAGED_SECONDS)],
        )
        if committed == b"unstaged":
            raise redis.TimeoutError("the result was gone before it could be committed")
        if committed == b"committed" and self.images is not self.redis:
            # Committed is committed; an image that stays behind goes with its time to live.
            with suppress(*UNAVAILABLE):
                self.images.unlink(image_key(self._queue, attempt.task_id))
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
        status, *rest = self._lua.run(
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
        if status == b"dead" and self.images is not self.redis:
            source, letter = image_key(self._queue, task_id), dead_image_key(self._queue, task_id)
            if self.images.exists(source):
                self.images.rename(source, letter)
                self.images.expire(letter, settings.dead_ttl_seconds)
            for evicted in rest[0]:
                self.images.unlink(dead_image_key(self._queue, evicted.decode()))
        return str(status.decode())

    def bury_message(self, text: str, why: str) -> None:
        """Keep the text of a broker message that no job can come of."""
        settings = self._settings
        self._lua.run(
            "bury_message",
            f"message-{uuid.uuid4()}",
            text,
            json.dumps(UndeliverableMessage(why).as_dict()),
            settings.dead_ttl_seconds,
            settings.dead_max_jobs,
            settings.dead_max_bytes,
        )

    # -- a worker -----------------------------------------------------------------------------

    def heartbeat(self, worker: str, report: dict[str, Any], running: Iterable[str]) -> Recovered:
        """Renew the leases of `running`, report, and take care of what nobody holds any more."""
        settings = self._settings
        lost, vanished = self._lua.run(
            "heartbeat",
            worker,
            json.dumps(report),
            int(settings.lease_seconds * 1000),
            int(HEARTBEAT_SECONDS * 1000),
            settings.result_ttl_seconds,
            settings.max_queue_seconds * 1000,
            *running,
        )
        outcomes = [
            self.abandon(task_id.decode(), "worker_lost", attempt=int(number))
            for task_id, number in lost
        ]
        republished = sum(
            self._lua.run("republish", task_id, task_message(task_id.decode(), self._queue))
            for task_id, _ in vanished
        )
        return Recovered(outcomes.count("requeued"), outcomes.count("dead"), republished)

    def describe_model(self, model: str, task: str, names: dict[int, str]) -> None:
        """Tell gateways which model is served, once it is loaded."""
        text = json.dumps({"model": model, "task": task, "names": names})
        self.redis.set(f"{self._queue}:model", text)

    def leave(self, worker: str) -> None:
        """Take the worker off the list at once, rather than after three missed heartbeats."""
        self._lua.run("leave", worker)


def _attempt(flat: Sequence[bytes], image: bytes | None = None) -> Attempt:
    """From a record as Redis gives it: field, value, field, value ..."""
    record = JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
    return Attempt(record.task_id, record.attempts, record, image)


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
        settings.max_queue_jobs,
        settings.max_queue_bytes,
        first.idempotency_key,
        first.fingerprint,
        int(not settings.image_redis_url),
    ]
    for job in jobs:
        arguments += [
            job.task_id,
            len(job.image),
            job.parameters.model_dump_json(),
            job.width,
            job.height,
            job.content_type,
            "" if adopt else first_message(job.task_id, settings.yolo_queue, job.traceparent),
            job.webhook_url,
            job.traceparent,
        ]
    return arguments
