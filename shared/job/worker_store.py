"""A job's life as a worker sees it: claim, renew, finish, abandon. Blocking.

Every transition is one Lua script (`lua/`), so it happens as a whole or not at all, and a
transition that lost a race does nothing. Keys: keys.py. The gateway's side: gateway_store.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import AttemptsExhausted, JobError, UndeliverableMessage
from shared.job import upload_storage
from shared.job.celery_result import failure_meta
from shared.job.keys import Keys, job_of, part_of, result_key
from shared.job.message import first_message, task_message
from shared.job.record import Attempt, JobRecord, JobState, NewJob
from shared.job.scripts import Command, LuaScripts
from shared.redis_access.client import connect
from shared.settings import Settings

Retry = Callable[[Callable[[], Any]], Any]
"""Calls a function, perhaps several times, and returns what it returns."""

STAGED_SECONDS = 60
"""How long a result may wait for its commit, which follows at once."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many lost jobs a heartbeat recovered, by outcome; and the models that this worker should
    describe."""

    requeued: int = 0
    dead: int = 0
    republished: int = 0
    unknown_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a part's findings. `status`: `delivered`; `last` if no other part is missing;
    `stale` if the attempt no longer held the part."""

    status: str
    more_wait: bool = False
    """If delivered: whether other parts of the job wait for a process."""
    queue_ms: int = 0
    """Of the last part: how long its job waited until it began."""
    run_ms: int = 0
    """Of the last part: since its job began."""
    size_bytes: int = 0
    """Of the last part: the job's upload."""


class WorkerStore:
    """One instance a process; make it after the fork.

    Every method may raise one of `UNAVAILABLE`. All but `claim_more` are safe to repeat: a
    transition that has happened already does nothing.
    """

    def __init__(self, settings: Settings, *, timeout_seconds: float = 5.0) -> None:
        self._settings = settings
        self._retry: Retry = _once
        self.keys = Keys(settings.yolo_queue)
        # Any: redis-py types every answer as a union of what all versions could give.
        self.redis: Any = connect(settings.redis_url, timeout_seconds=timeout_seconds)
        self._lua = LuaScripts(
            self.redis,
            settings,
            *("accept", "claim", "claim_more", "deliver", "finish", "abandon"),
            *("heartbeat", "worker_leave", "describe_model", "republish", "bury_message", "purge"),
        )

    def retrying(self, retry: Retry) -> WorkerStore:
        """This store, on the same connections, with every method that is safe to repeat going
        through `retry`."""
        store = copy(self)
        store._retry = retry
        return store

    # -- an attempt ---------------------------------------------------------------------------

    def claim(
        self, task_id: str, worker: str, models: Collection[str], *, with_image: bool = True
    ) -> Attempt | str:
        """Start an attempt, or say why not: `unknown`, `running`, `finished`, `in parts`, or
        `elsewhere` if its model is none of `models`, which this worker serves."""
        after = [upload_storage.fetching(self.keys, task_id)] if with_image else []
        (status, *rest), *images = self._run_among(
            "claim", after=after, id=task_id, worker=worker, models=list(models)
        )
        image = images[0] if images else None
        return _attempt(rest[1], image) if status == b"claimed" else str(status.decode())

    def claim_more(self, attempt: Attempt, worker: str, wanted: int) -> list[Attempt]:
        """Start the first attempts of up to `wanted` queued jobs that can share a forward pass with
        this one: the same model and parameters, from all its lanes in turn. None if the attempt has
        lost its job.

        Not safe to repeat, so it never retries: if the answer is lost, the claimed jobs wait for
        their leases to run out.
        """
        claimed = self._lua.run(
            "claim_more", id=attempt.task_id, attempt=attempt.number, worker=worker, wanted=wanted
        )
        return [_attempt(flat) for flat in claimed]

    def accept(self, job: NewJob, *, adopt: bool = False) -> bool:
        """Store a job; False if the queue is full. `adopt`: Celery has delivered it already, with
        its image inline, so it needs no message and no room in the queue."""
        storing = upload_storage.storing(self.keys, job, self._settings.record_ttl_seconds)
        arguments = accept_arguments([job], self._settings, adopt=adopt)
        _, (status, _) = self._run_among("accept", before=[storing], **arguments)
        return bool(status == b"accepted")

    def refuse(self, task_id: str, error: JobError) -> None:
        """Answer an inline task that cannot become a job, where its producer waits for it."""
        meta, key = failure_meta(task_id, error), result_key(task_id)
        self._execute("SET", key, meta, "EX", self._settings.result_ttl_seconds, "NX")
        self._execute("PUBLISH", key, meta)

    def exists(self, task_id: str) -> bool:
        """Whether there is a record, in whatever state."""
        return bool(self._execute("EXISTS", self.keys.job(task_id)))

    def knows_model(self, name: str) -> bool:
        """Whether a worker serves it, or has lately."""
        return self._execute("ZSCORE", self.keys.models, name) is not None

    def image(self, task_id: str) -> bytes | None:
        """The upload as it came, or None if it is gone."""
        value = self._execute(*upload_storage.fetching(self.keys, task_id))
        return value if isinstance(value, bytes) else None

    def deliver(self, attempt: Attempt, found: bytes) -> Delivery:
        """Keep what a part has found, until the last part makes the job's result of it."""
        staged = self.keys.staged(attempt.task_id, attempt.number)
        run_us = attempt.run_us

        def deliver() -> Delivery:
            _, (status, *rest) = self._lua.run_among(
                "deliver",
                before=[("SET", staged, found, "EX", STAGED_SECONDS)],
                id=attempt.task_id,
                attempt=attempt.number,
                staged=staged,
                run_us=run_us,
            )
            if status == b"unstaged":
                raise redis.TimeoutError("what was found was gone before it could be delivered")
            if status == b"last":
                queue_ms, run_ms, size_bytes = (max(0, int(number)) for number in rest)
                return Delivery("last", False, queue_ms, run_ms, size_bytes)
            return Delivery(status.decode(), more_wait=bool(rest and rest[0]))

        delivery: Delivery = self._retry(deliver)
        return delivery

    def found(self, attempt: Attempt) -> dict[int, bytes]:
        """What the job's other parts have delivered, by their number."""
        job = job_of(attempt.task_id)
        numbers = range(attempt.record.parts)
        values = self._execute("MGET", *(self.keys.found(part_of(job, n)) for n in numbers))
        return {n: value for n, value in zip(numbers, values, strict=True) if value is not None}

    def keep_found(self, attempt: Attempt, number: int, found: bytes) -> bool:
        """Keep what this attempt has found in place of another part, so that the next attempt need
        not. False if it no longer holds its own part."""
        key = self.keys.job(attempt.task_id)
        state, number_now = self._execute("HMGET", key, "state", "attempts")
        if state != b"processing" or int(number_now) != attempt.number:
            return False
        part = part_of(job_of(attempt.task_id), number)
        seconds = self._settings.record_ttl_seconds
        self._execute("SET", self.keys.found(part), found, "EX", seconds)
        return True

    def complete(self, attempt: Attempt, celery_meta: bytes) -> bool:
        """Commit a result. False if the attempt no longer holds the job: nothing was written."""
        return self._finish(attempt, JobState.COMPLETED, celery_meta)

    def fail(self, attempt: Attempt, celery_meta: bytes, error: JobError) -> bool:
        """Commit a failure that another attempt could not change. False as with `complete`."""
        return self._finish(attempt, JobState.FAILED, celery_meta, json.dumps(error.as_dict()))

    def _finish(
        self, attempt: Attempt, state: JobState, celery_meta: bytes, error: str = ""
    ) -> bool:
        staged = self.keys.staged(attempt.task_id, attempt.number)
        run_us = attempt.run_us

        def finish() -> bool:
            _, outcome = self._lua.run_among(
                "finish",
                before=[("SET", staged, celery_meta, "EX", STAGED_SECONDS)],
                id=attempt.task_id,
                attempt=attempt.number,
                state=state.value,
                staged=staged,
                error=error,
                run_us=run_us,
            )
            if outcome == b"unstaged":
                raise redis.TimeoutError("the result was gone before it could be committed")
            return bool(outcome == b"committed")

        return bool(self._retry(finish))

    def abandon(
        self, task_id: str, reason: str, *, attempt: int | None = None, worker: str = ""
    ) -> str:
        """End an attempt without an outcome. It is named by its number or by its worker.

        `reason` is `worker_lost`, `timeout` or `internal`. Returns `requeued`, `dead`, or `stale`
        if the attempt no longer held the job.
        """
        error = AttemptsExhausted(reason, self._settings.max_attempts)
        held = {"attempt": attempt} if attempt is not None else {"worker": worker}
        outcome = self._run(
            "abandon",
            id=task_id,
            **held,
            reason=reason,
            message=task_message(task_id, self.keys.queue),
            meta=failure_meta(job_of(task_id), error).decode(),
            error=json.dumps(error.as_dict()),
        )
        return str(outcome.decode())

    # -- a worker -----------------------------------------------------------------------------

    def heartbeat(self, worker: str, report: dict[str, Any], running: Iterable[str]) -> Recovered:
        """Renew the leases of `running`, report, and recover what nobody holds any more."""
        lost, vanished, unknown = self._run(
            "heartbeat", worker=worker, report=json.dumps(report), running=list(running)
        )
        outcomes = [
            self.abandon(task_id.decode(), "worker_lost", attempt=int(number))
            for task_id, number in lost
        ]
        republished = sum(self.republish(task_id.decode()) for task_id in vanished)
        return Recovered(
            outcomes.count("requeued"),
            outcomes.count("dead"),
            republished,
            tuple(name.decode() for name in unknown),
        )

    def republish(self, task_id: str) -> int:
        """Give a queued job a new message, in its lane; returns whether it was queued."""
        message = task_message(task_id, self.keys.queue)
        return int(self._run("republish", id=task_id, message=message))

    def describe_model(self, model: str, version: str, description: str) -> None:
        """Tell gateways what a model is in one version. `description`: JSON text."""
        self._run("describe_model", model=model, version=version, description=description)

    def leave(self, worker: str) -> None:
        """Take the worker off the list at once, rather than after three missed heartbeats."""
        self._run("worker_leave", worker=worker)

    # -- dead letters ---------------------------------------------------------------------------

    def bury_message(self, text: str, why: str) -> None:
        """Keep the text of a broker message that cannot become a job."""
        error = json.dumps(UndeliverableMessage(why).as_dict())
        self._run("bury_message", id=f"message-{uuid.uuid4()}", text=text, error=error)

    def purge(self, task_ids: Iterable[str]) -> int:
        """Delete dead letters and their images; returns how many there were."""
        return int(self._run("purge", ids=list(task_ids)))

    # -- with retries where they are wanted -----------------------------------------------------

    def _run(self, script: str, **arguments: Any) -> Any:
        return self._retry(lambda: self._lua.run(script, **arguments))

    def _run_among(
        self,
        script: str,
        *,
        before: Sequence[Command] = (),
        after: Sequence[Command] = (),
        **arguments: Any,
    ) -> Any:
        return self._retry(
            lambda: self._lua.run_among(script, before=before, after=after, **arguments)
        )

    def _execute(self, *command: Any) -> Any:
        return self._retry(lambda: self.redis.execute_command(*command))


def _once(action: Callable[[], Any]) -> Any:
    return action()


def _attempt(flat: Sequence[bytes], image: bytes | None = None) -> Attempt:
    """From a record as Redis gives it: field, value, field, value ..."""
    record = JobRecord.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
    return Attempt(record.task_id, record.attempts, record, image)


def _places_of(job: NewJob, settings: Settings) -> list[str]:
    """What waits for a job: itself, or its parts. A queue that holds few has room for them."""
    parts = min(job.parts, max(1, settings.max_queue_jobs // 4))
    return [part_of(job.task_id, n) for n in range(parts)] if parts > 1 else [job.task_id]


def accept_arguments(
    jobs: Sequence[NewJob], settings: Settings, *, adopt: bool = False
) -> dict[str, Any]:
    """Arguments of accept.lua for jobs of one owner and one model."""
    return {
        "owner": jobs[0].owner,
        "model": jobs[0].model,
        "idempotency_key": jobs[0].idempotency_key,
        "fingerprint": jobs[0].fingerprint,
        "adopt": adopt,
        "jobs": [
            {
                "id": job.task_id,
                "bytes": len(job.image),
                "params": job.parameters.as_json(),
                "width": job.width,
                "height": job.height,
                "content_type": job.content_type,
                "messages": [
                    first_message(task_id, settings.yolo_queue, job.traceparent)
                    for task_id in _places_of(job, settings)
                ],
                "webhook_url": job.webhook_url,
                "traceparent": job.traceparent,
            }
            for job in jobs
        ],
    }
