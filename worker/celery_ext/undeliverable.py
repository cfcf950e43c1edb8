"""Recognises broker messages that cannot become jobs, and keeps them as dead letters.

Most of them would end Celery's worker, which puts the message back, so that it ends the next worker
too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.redis_access.client import UNAVAILABLE

log = logging.getLogger("yolo_queue.worker")

KEPT_CHARACTERS = 64 * 1024
"""Kept of a message's text; an inline image may have megabytes."""

_Text = Annotated[str, Field(min_length=1, max_length=255)]


class _Task(BaseModel):
    """The headers that Celery reads when it takes a message (message protocol, version 2)."""

    model_config = ConfigDict(strict=True)

    task: _Text
    id: _Text
    timelimit: list[float | int | None] | None = Field(None, min_length=2, max_length=2)
    eta: str | None = None
    expires: str | float | int | None = None
    retries: int | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None


def fault_of(message: Any) -> str:
    """Why a kombu message cannot be a task; empty if it can. It decodes the body, as Celery
    will."""
    try:
        body = message.payload
    except Exception as error:
        return f"its body cannot be decoded: {error}"
    # Version 1 of the protocol has everything in the body; some clients still write it.
    old = not isinstance(message.headers, Mapping) or "task" not in message.headers
    if old and not isinstance(body, Mapping):
        return "it does not name a task"
    try:
        _Task.model_validate(body if old else message.headers)
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    if isinstance(body, Mapping) and (old or "args" in body):
        parts = [body.get("args", []), body.get("kwargs", {}), None]
    elif isinstance(body, list) and len(body) == 3:
        parts = body
    else:
        return "its body is not [arguments, keyword arguments, options]"
    kinds = (list, Mapping, Mapping | None)
    if not all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True)):
        return "its arguments are not a list and an object, or its options no object"
    return ""


def text_of(message: object) -> str:
    """A message that kombu has parsed, as text again."""
    return json.dumps(message, default=repr)


def keep(text: str, why: str) -> None:
    """Log a message that is dropped, and keep its text among the dead letters."""
    from worker.celery_ext import heartbeat

    log.error("dropped a message that cannot become a job: %s; it begins %.200s", why, text)
    store = heartbeat.parent_store()
    if store is None:
        return
    try:
        store.bury_message(text[:KEPT_CHARACTERS], why)
    except UNAVAILABLE as error:
        log.warning("could not keep it as a dead letter: %s", error)
