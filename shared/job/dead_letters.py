"""Reads, retries and deletes dead letters: jobs that were given up, each with its image and
history, and broker messages that could not become jobs.

abandon.lua makes one in the step that ends the job; bury_message.lua keeps messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.errors import ModelNotFound
from shared.job.record import DetectParameters, NewJob
from shared.job.worker_store import WorkerStore
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, with what is needed to look into it. Times in epoch milliseconds."""

    task_id: str
    model: str
    died_ms: int
    size_bytes: int
    content_type: str
    parameters: dict[str, Any]
    error: dict[str, Any]
    history: list[dict[str, Any]]
    message: str | None = None
    """The text of a broker message that could not become a job."""


class DeadLetters:
    def __init__(self, settings: Settings, store: WorkerStore | None = None) -> None:
        self._store = store or WorkerStore(settings)
        self._keys = self._store.keys

    def list(self) -> list[DeadLetter]:
        """All of them, the newest first."""
        ids = self._store.redis.zrevrange(self._keys.dead, 0, -1)
        letters = (self.find(task_id.decode()) for task_id in ids)
        return [letter for letter in letters if letter is not None]

    def find(self, task_id: str) -> DeadLetter | None:
        fields = self._fields(task_id)
        if not fields:
            return None
        return DeadLetter(
            task_id=task_id,
            model=fields.get(b"model", b"").decode(),
            died_ms=int(fields[b"died_ms"]),
            size_bytes=int(fields[b"bytes"]),
            content_type=fields[b"content_type"].decode(),
            parameters=json.loads(fields[b"params"]),
            error=json.loads(fields[b"error"]),
            history=json.loads(fields[b"history"]),
            message=fields[b"message"].decode(errors="replace") if b"message" in fields else None,
        )

    def image(self, task_id: str) -> bytes | None:
        value = self._store.redis.get(self._keys.dead_image(task_id))
        return value if isinstance(value, bytes) else None

    def retry(self, task_id: str) -> str | None:
        """Submit a letter's image again as a new job. A job ends once, so it gets a new id.

        Returns the id, or None if the letter or its image is gone or the queue is full. Raises
        `ModelNotFound` if no worker serves its model any more.
        """
        fields, image = self._fields(task_id), self.image(task_id)
        if not fields or image is None:
            return None
        model = fields.get(b"model", b"").decode() or self._only_model()
        if not self._store.knows_model(model):
            raise ModelNotFound(f"No worker serves the model {model!r} of {task_id}.")
        job = NewJob(
            owner=fields[b"owner"].decode(),
            model=model,
            image=image,
            content_type=fields[b"content_type"].decode(),
            width=0,
            height=0,
            parts=int(fields.get(b"parts", 1)),
            parameters=DetectParameters.model_validate_json(fields[b"params"]),
        )
        if not self._store.accept(job):
            return None
        self.purge([task_id])
        return job.task_id

    def _only_model(self) -> str:
        """For a letter from before there were several models."""
        names = self._store.redis.zrange(self._store.keys.models, 0, -1)
        return names[0].decode() if len(names) == 1 else ""

    def purge(self, task_ids: Iterable[str]) -> int:
        """Delete letters and their images; returns how many there were."""
        return self._store.purge(task_ids)

    def _fields(self, task_id: str) -> dict[bytes, bytes]:
        fields: dict[bytes, bytes] = self._store.redis.hgetall(self._keys.dead_letter(task_id))
        return fields
