"""Owns what Celery's result backend holds for a task, so that `AsyncResult` finds what it expects.

Written with a job's state in one step, and not by Celery: see docs/decisions/0003.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from shared.errors import JobError

_HEAD = b'{"status":"SUCCESS","result":'
_TAIL = b',"traceback":null,"children":[],"task_id":"%b"}'


def failure_meta(task_id: str, error: JobError) -> bytes:
    """Of a failed task: `AsyncResult` raises the error."""
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


def success_meta(task_id: str, result: dict[str, Any], jpeg: bytes | None = None) -> bytes:
    """Of a finished task. `jpeg` becomes the result's `image`,
    a data URL; it comes last, so that what else there is can be read without it."""
    parts = [_HEAD, json.dumps(result).encode()]
    if jpeg is not None:
        # Not through json: there is nothing to escape in half a megabyte of Base64.
        parts[1] = parts[1][:-1]
        parts += [b', "image": "data:image/jpeg;base64,', base64.b64encode(jpeg), b'"}']
    return b"".join([*parts, _TAIL % task_id.encode()])


def result_of(task_id: str, meta: bytes) -> memoryview:
    """The result in a `success_meta`, as the JSON text it is. Parsing and writing again a picture
    of half a megabyte, or only copying it, would be most of what the gateway does."""
    tail = _TAIL % task_id.encode()
    if meta.startswith(_HEAD) and meta.endswith(tail):
        return memoryview(meta)[len(_HEAD) : -len(tail)]
    return memoryview(json.dumps(json.loads(meta)["result"]).encode())  # Celery's own writing
