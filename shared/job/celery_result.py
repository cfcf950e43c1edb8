"""Writes and reads results in the format of Celery's result backend, for `AsyncResult`.

Celery does not write them itself: a result is stored in one step with the job's state (decision
0003).
"""

from __future__ import annotations

import base64
import json
from typing import Any

from shared.errors import JobError

_HEAD = b'{"status":"SUCCESS","result":'
_TAIL = b',"traceback":null,"children":[],"task_id":%b}'


def failure_meta(task_id: str, error: JobError) -> bytes:
    """The backend's entry of a failed task: `AsyncResult` raises the error."""
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
    """The backend's entry of a finished task. `jpeg` becomes the result's `image`, a data URL. It
    comes last, so that everything else can be read without it."""
    parts = [_HEAD, json.dumps(result).encode()]
    if jpeg is not None:
        # Not through `json`: half a megabyte of Base64 has nothing to escape.
        parts[1] = parts[1][:-1]
        parts += [b', "image": "data:image/jpeg;base64,', base64.b64encode(jpeg), b'"}']
    return b"".join([*parts, _TAIL % json.dumps(task_id).encode()])


def result_of(task_id: str, meta: bytes) -> memoryview:
    """The result inside a `success_meta`, as JSON text and without a copy. Parsing or copying half
    a megabyte of picture would be most of the gateway's work."""
    tail = _TAIL % json.dumps(task_id).encode()
    if meta.startswith(_HEAD) and meta.endswith(tail):
        return memoryview(meta)[len(_HEAD) : -len(tail)]
    return memoryview(json.dumps(json.loads(meta)["result"]).encode())  # written by Celery itself
