"""Writes the Celery message of a job: Celery's message protocol 2 in kombu's Redis envelope.

The gateway writes it itself, in the same Lua step as the job's record. So no crash can separate the
two, and the gateway needs neither Celery nor a second connection. Celery documents the format,
which has not changed since 4.0; tests/integration/test_task_message.py compares it with what the
installed Celery sends.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping

from shared.job.keys import TASK_NAME

ORIGIN = "yolo-queue"
"""In the header `origin` of every message about a job that has a record."""

_BODY = base64.b64encode(
    json.dumps(
        [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    ).encode()
).decode()


def first_message(task_id: str, queue: str, traceparent: str = "") -> str:
    """The message that a job is accepted with. It is always the same for a job, so that cancelling
    can find and remove it. `traceparent`: the request's trace context, if it is traced.
    """
    return task_message(task_id, queue, traceparent, delivery_tag=task_id)


def task_message(
    task_id: str, queue: str, traceparent: str = "", *, delivery_tag: str | None = None
) -> str:
    """The message that makes a worker run `task_id`. It carries the id alone; the image stays under
    its own key.

    `delivery_tag`: by which kombu distinguishes unacknowledged messages; a new one unless given.
    """
    return json.dumps(
        {
            "body": _BODY,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": TASK_NAME,
                "id": task_id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": task_id,
                "parent_id": None,
                "argsrepr": "()",
                "kwargsrepr": "{}",
                "origin": ORIGIN,
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                **({"traceparent": traceparent} if traceparent else {}),
            },
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": delivery_tag or str(uuid.uuid4()),
            },
        }
    )


def is_about_a_record(headers: object) -> bool:
    """Whether a message is one that this module has written: its job is in Redis already. An inline
    task, which carries its image, is not."""
    return isinstance(headers, Mapping) and headers.get("origin") == ORIGIN
