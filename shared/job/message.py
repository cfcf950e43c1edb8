"""Owns the Celery message of a job: protocol 2 in kombu's Redis envelope.

The gateway writes it itself, in the same Lua step as the job's record, so that no crash can part
the two, and so that it needs neither Celery nor a second connection. The format is documented by
Celery (Message Protocol, version 2) and unchanged since 4.0; tests/integration compares it with
what the installed Celery sends.
"""

from __future__ import annotations

import base64
import json
import uuid

from shared.job.keys import TASK_NAME

_BODY = base64.b64encode(
    json.dumps(
        [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    ).encode()
).decode()


def first_message(task_id: str, queue: str, traceparent: str = "") -> str:
    """The message a job is accepted with: always the same for a job, so that cancelling it can
    remove it from its list. `traceparent`: the request's trace context, if it is traced.
    """
    return task_message(task_id, queue, traceparent, delivery_tag=task_id)


def task_message(
    task_id: str, queue: str, traceparent: str = "", *, delivery_tag: str | None = None
) -> str:
    """The message that makes a worker run `task_id`. It carries the id; the image stays in its key.

    `delivery_tag`: what kombu tells unacknowledged messages apart by; a new one unless given.
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
                "origin": "yolo-queue",
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
