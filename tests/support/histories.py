"""Writes histories by hand: operations of a job, for tests of the history checker.

A state is a letter of `STATES` and the number of attempts, such as `P1`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from shared.job.record import JobState
from tests.chaos.history import History, Kind, Operation, Outcome
from tests.chaos.history_checker import check

TTL_SECONDS = 3600.0
CREATED, FINISHED = "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z"
STATES = {"Q": "queued", "P": "processing", "C": "completed", "F": "failed", "X": "cancelled"}
DETECTIONS = [{"name": "qr_code", "confidence": 0.9}]


def job(state: str, task_id: str = "t1", **changed: Any) -> dict[str, Any]:
    status, attempts = STATES[state[0]], int(state[1:])
    described: dict[str, Any] = {
        "task_id": task_id,
        "status": status,
        "created_at": CREATED,
        "attempts": attempts,
    }
    if attempts:
        described["started_at"] = f"2026-01-01T00:00:{attempts:02}.000Z"
    if JobState(status).terminal:
        described["finished_at"] = FINISHED
    if status == "completed":
        described |= {"detections": DETECTIONS, "image": "sha256:1"}
    if status == "failed":
        described["error"] = {"code": "internal", "message": "", "retryable": False}
    return described | changed


def operation(kind: Kind, invoked: float, returned: float, **more: Any) -> Operation:
    return Operation(
        number=0, process="someone", kind=kind, invoked=invoked, returned=returned, **more
    )


def submit(
    invoked: float, returned: float, state: str = "Q0", *, key: str = "k1", **more: Any
) -> Operation:
    value = job(state, **{name: more.pop(name) for name in ("task_id",) if name in more})
    more = {"status": 201, "task_id": value["task_id"], "value": value, "key": key, **more}
    return operation(Kind.SUBMIT, invoked, returned, **more)


def read(invoked: float, returned: float, state: str, **changed: Any) -> Operation:
    value = job(state, **changed)
    return operation(
        Kind.READ, invoked, returned, status=200, task_id=value["task_id"], value=value
    )


def cancelled(invoked: float, returned: float, state: str = "X0") -> Operation:
    return operation(Kind.CANCEL, invoked, returned, status=200, task_id="t1", value=job(state))


def refused(kind: Kind, invoked: float, returned: float, status: int, **more: Any) -> Operation:
    more = {"code": f"code_{status}", **more}
    return operation(kind, invoked, returned, status=status, outcome=Outcome.REFUSED, **more)


def refused_cancel(invoked: float, returned: float, state: str) -> Operation:
    value = {"detail": f"The job is already {state}."}
    return refused(Kind.CANCEL, invoked, returned, 409, task_id="t1", value=value)


def lost(kind: Kind, invoked: float, returned: float, **more: Any) -> Operation:
    return operation(kind, invoked, returned, outcome=Outcome.UNKNOWN, **more)


def past(at: float, number: int, state: str) -> dict[str, Any]:
    """An event that the client had missed."""
    data = {"task_id": "t1", "status": STATES[state[0]], "attempt": state[1:]}
    return {"at": at, "id": f"100-{number}", "data": data}


def event(at: float, number: int | None, state: str, **changed: Any) -> dict[str, Any]:
    """An event with the whole job; without a number it tells the position."""
    return {
        "at": at,
        "id": "" if number is None else f"100-{number}",
        "data": job(state, **changed),
    }


def follow(invoked: float, *events: dict[str, Any], after: int | None = None) -> Operation:
    return operation(
        Kind.FOLLOW,
        invoked,
        events[-1]["at"] if events else invoked + 1,
        status=200,
        task_id="t1",
        sent={"last_event_id": "" if after is None else f"100-{after}"},
        value={"events": list(events)},
    )


def webhook(at: float, state: str, *, signed: bool = True, **changed: Any) -> Operation:
    data = job(state)
    data.pop("image", None)
    notice = {"type": f"job.{data['status']}", "timestamp": FINISHED, "data": data, **changed}
    value = {"id": "t1", "signed": signed, "body": json.dumps(notice)}
    return operation(Kind.WEBHOOK, at, at, task_id="t1", value=value)


def queue(at: float, finished_total: int) -> Operation:
    value = {"finished_total": finished_total}
    return operation(Kind.QUEUE, at, at + 0.01, status=200, value=value)


def full(invoked: float, returned: float, retry_after: str, *, key: str = "k1") -> Operation:
    detail = f"The queue is full (100 jobs waiting); try again in {retry_after} s."
    return refused(
        Kind.SUBMIT,
        invoked,
        returned,
        503,
        code="queue_full",
        retry_after=retry_after,
        key=key,
        value={"detail": detail},
    )


def violations(*operations: Operation, complete: bool = False) -> list[str]:
    numbered = [replace(one, number=number) for number, one in enumerate(operations, 1)]
    return check(
        History(
            operations=tuple(numbered),
            result_ttl_seconds=TTL_SECONDS,
            max_attempts=3,
            complete=complete,
        )
    )
