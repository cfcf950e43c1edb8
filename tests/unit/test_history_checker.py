"""The history checker finds what is impossible, rule by rule, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import History, Kind, Operation, Outcome, Recorder
from tests.chaos.history_checker import summary
from tests.support.histories import (
    DETECTIONS,
    FINISHED,
    TTL_SECONDS,
    cancelled,
    event,
    follow,
    full,
    lost,
    operation,
    past,
    queue,
    read,
    refused,
    refused_cancel,
    submit,
    violations,
    webhook,
)

WITH_WEBHOOK: dict[str, Any] = {"sent": {"webhook_url": "http://receiver/"}}
SUBMITTED = submit(0, 1)
END = read(8, 9, "C1")

IMPOSSIBLE: dict[str, tuple[str, list[Operation]]] = {
    # -- states
    "a read goes back": ("is older than", [SUBMITTED, read(2, 3, "P1"), read(4, 5, "Q0")]),
    "a job is queued again without another attempt": (
        "is older than",
        [SUBMITTED, read(2, 3, "Q1"), read(4, 5, "P1")],
    ),
    "a read is older than a refused cancel": (
        "is older than",
        [SUBMITTED, refused_cancel(2, 3, "completed"), read(4, 5, "P1")],
    ),
    "a read is older than an event": (
        "is older than",
        [SUBMITTED, follow(1, past(2, 1, "Q0"), event(3, 2, "P1")), read(4, 5, "Q0")],
    ),
    "a read is older than a webhook": (
        "is older than",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "C1"), read(3, 4, "P1")],
    ),
    "an event is older than a read before the stream": (
        "is older than",
        [SUBMITTED, read(1, 2, "P1"), follow(3, event(4, 1, "Q0"))],
    ),
    "a submission repeats an older state": (
        "is older than",
        [SUBMITTED, read(1, 2, "P1"), submit(3, 4, "Q0", status=200)],
    ),
    "two ends": ("two terminal states", [SUBMITTED, read(2, 9, "C1"), read(3, 8, "F1")]),
    "an end and a refused cancel that names another": (
        "two terminal states",
        [SUBMITTED, read(2, 9, "C1"), refused_cancel(3, 8, "expired")],
    ),
    "detections change": (
        "detections differs",
        [SUBMITTED, END, read(8, 9, "C1", detections=[])],
    ),
    "the picture changes": (
        "picture differs",
        [SUBMITTED, END, read(8, 9, "C1", image="sha256:2")],
    ),
    "finished_at changes": (
        "finished_at differs",
        [SUBMITTED, END, read(8, 9, "C1", finished_at="2026-01-01T00:02:00.000Z")],
    ),
    "attempts change after the end": (
        "attempts differs",
        [SUBMITTED, END, read(8, 9, "C2")],
    ),
    "completed in an attempt that was lost": (
        "cannot be on the way",
        [SUBMITTED, read(2, 9, "Q1"), read(2, 9, "C1")],
    ),
    "an attempt after the last one": (
        "cannot be on the way",
        [SUBMITTED, read(2, 9, "P2"), read(2, 9, "F1")],
    ),
    "more attempts than allowed": ("attempts", [SUBMITTED, read(2, 3, "P4")]),
    "queued again after the last attempt": ("attempts", [SUBMITTED, read(2, 3, "Q3")]),
    "completed without an attempt": ("attempts", [SUBMITTED, read(2, 3, "C0")]),
    "created_at changes": (
        "created_at differs",
        [SUBMITTED, read(2, 3, "Q0", created_at="2026-01-01T00:00:01.000Z")],
    ),
    "started_at of an attempt changes": (
        "started_at of one attempt differs",
        [SUBMITTED, read(2, 9, "P1"), read(2, 9, "P1", started_at="2026-01-01T00:00:05.000Z")],
    ),
    "a later attempt started earlier": (
        "started earlier",
        [SUBMITTED, read(2, 3, "P1"), read(4, 5, "P2", started_at="2026-01-01T00:00:00.500Z")],
    ),
    "processing, but never started": (
        "started_at does not fit",
        [SUBMITTED, read(2, 3, "P1", started_at=None), read(2, 3, "Q0", started_at="x")],
    ),
    "finished, but processing": (
        "finished_at does not fit",
        [SUBMITTED, read(2, 3, "P1", finished_at=FINISHED)],
    ),
    "a cancelled job shows a result": (
        "shows detections",
        [SUBMITTED, cancelled(2, 3), read(4, 5, "X0", detections=DETECTIONS)],
    ),
    "a running job shows a result": (
        "shows model_version",
        [SUBMITTED, read(4, 5, "P1", model_version="9f86")],
    ),
    "a completed job has an error": (
        "the error does not fit",
        [SUBMITTED, read(2, 3, "C1", error={"code": "internal"})],
    ),
    # -- cancelling
    "completed after a cancel that succeeded": (
        "two terminal states",
        [SUBMITTED, cancelled(2, 3), read(4, 5, "C1")],
    ),
    "processing after a cancel that succeeded": (
        "is older than",
        [SUBMITTED, cancelled(2, 3), read(4, 5, "P1")],
    ),
    "cancelled twice": ("cancelled twice", [SUBMITTED, cancelled(2, 3), cancelled(4, 5)]),
    "a cancel that does not cancel": ("did not cancel", [SUBMITTED, cancelled(2, 3, "P1")]),
    "cancelled by nobody": ("by nobody", [SUBMITTED, read(2, 3, "X0")]),
    "cancelled before the only cancel": (
        "by nobody",
        [SUBMITTED, read(2, 3, "X0"), lost(Kind.CANCEL, 4, 5, task_id="t1")],
    ),
    "cancelled, but the only cancel was refused": (
        "by nobody",
        [SUBMITTED, refused_cancel(2, 3, "cancelled"), read(4, 5, "X0")],
    ),
    # -- being known
    "an accepted job is unknown": (
        "unknown before its result has expired",
        [SUBMITTED, refused(Kind.READ, 2, 3, 404, task_id="t1")],
    ),
    "a completed job is unknown before its time": (
        "unknown before its result has expired",
        [
            SUBMITTED,
            read(100, 101, "P1"),
            END,
            refused(Kind.READ, TTL_SECONDS + 50, TTL_SECONDS + 51, 404, task_id="t1"),
        ],
    ),
    "a job comes back": (
        "was already unknown",
        [
            SUBMITTED,
            END,
            refused(Kind.READ, TTL_SECONDS + 50, TTL_SECONDS + 51, 404, task_id="t1"),
            read(TTL_SECONDS + 52, TTL_SECONDS + 53, "C1"),
        ],
    ),
    # -- submitting
    "one key, two jobs": (
        "one key, two jobs",
        [SUBMITTED, submit(2, 3, task_id="t2", status=200)],
    ),
    "one key, two jobs, across a lost answer": (
        "one key, two jobs",
        [
            lost(Kind.SUBMIT, 0, 1, key="k1"),
            submit(2, 3, status=200),
            submit(4, 5, task_id="t2", status=200),
        ],
    ),
    "one job, two keys": ("one job, two keys", [SUBMITTED, submit(2, 3, key="k2")]),
    "made twice": ("made twice", [SUBMITTED, submit(2, 3)]),
    "a repeat of nothing": ("a repeat of nothing", [submit(2, 3, status=200)]),
    "a repeat of what was never sent": (
        "a repeat of nothing",
        [
            operation(Kind.SUBMIT, 0, 1, key="k1", outcome=Outcome.UNSENT),
            submit(2, 3, status=200),
        ],
    ),
    "a repeat before the job was made": (
        "a repeat of nothing",
        [submit(0, 1, status=200), submit(2, 3)],
    ),
    "an internal error": ("internal", [refused(Kind.READ, 0, 1, 500, code="internal")]),
    # -- events
    "event ids go back": (
        "repeats, or is out of order",
        [SUBMITTED, follow(1, past(2, 2, "Q0"), event(3, 1, "P1"))],
    ),
    "resuming repeats an event": (
        "repeats, or is out of order",
        [SUBMITTED, follow(1, event(2, 1, "Q0")), follow(3, event(4, 1, "Q0"), after=1)],
    ),
    "an event within a stream goes back": (
        "a stream goes back",
        [SUBMITTED, follow(1, event(2, 1, "P1"), event(3, 2, "Q0"))],
    ),
    "an event after the end": (
        "an event after the end",
        [SUBMITTED, follow(1, event(2, 1, "C1"), event(3, 2, "C1"))],
    ),
    "an event is lost": (
        "cannot come right after",
        [SUBMITTED, follow(1, past(2, 1, "Q0"), event(3, 2, "C1"))],
    ),
    "the first event is lost": (
        "the first event is not",
        [SUBMITTED, follow(1, event(3, 2, "P1"), event(4, 3, "C1"))],
    ),
    "resuming loses an event": (
        "event (100, 2) is missing",
        [
            SUBMITTED,
            follow(1, past(2, 1, "Q0"), past(2, 2, "P1"), event(3, 3, "C1")),
            follow(4, event(5, 1, "Q0")),
            follow(6, event(7, 3, "C1"), after=1),
        ],
    ),
    "two streams disagree": (
        "differs",
        [
            SUBMITTED,
            follow(1, past(2, 1, "Q0"), event(3, 2, "P1")),
            follow(4, past(5, 1, "Q0"), past(5, 2, "P2")),
        ],
    ),
    "a stream without an end": (
        "no stream has the end",
        [SUBMITTED, follow(1, event(2, 1, "Q0")), END],
    ),
    # -- webhooks
    "a webhook never comes": ("never came", [submit(0, 1, **WITH_WEBHOOK), END]),
    "a webhook tells another end": (
        "two terminal states",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "F1"), END],
    ),
    "a webhook before the end": (
        "a webhook of a job that is processing",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "P1"), END],
    ),
    "a webhook with other bytes": (
        "not the bytes of",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "C1"), webhook(3, "C1", timestamp="now"), END],
    ),
    "a webhook with a wrong signature": (
        "the signature is wrong",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "C1", signed=False), END],
    ),
    "a webhook of another type": (
        "type or id does not fit",
        [submit(0, 1, **WITH_WEBHOOK), webhook(2, "C1", type="job.failed"), END],
    ),
    "a webhook that nobody wanted": ("nobody asked", [SUBMITTED, webhook(2, "C1"), END]),
    # -- Retry-After and the queue
    "no Retry-After": ("Retry-After is missing", [full(0, 1, "")]),
    "a date as Retry-After": ("Retry-After is Thu", [full(0, 1, "Thu, 01 Jan 2026 00:00:00 GMT")]),
    "Retry-After is 0": ("Retry-After is 0", [full(0, 1, "0")]),
    "Retry-After is an hour": ("Retry-After is 3600", [full(0, 1, "3600")]),
    "Retry-After is longer than its constant": (
        "Retry-After is 30",
        [refused(Kind.READ, 0, 1, 503, code="redis_unavailable", retry_after="30")],
    ),
    "waiting as told is in vain": (
        "still refused after waiting",
        [full(2.0 * number, 2.0 * number + 0.5, "1") for number in range(40)],
    ),
    "a full queue announces too much": (
        "estimate badly",
        [queue(0.5 * second, 20 * second) for second in range(80)]
        + [full(0.1 * number, 0.1 * number + 0.01, "60", key=f"k{number}") for number in range(9)],
    ),
    "a full queue announces too little": (
        "estimate badly",
        [queue(0.5 * second, second // 50) for second in range(2000)]
        + [full(0.1 * number, 0.1 * number + 0.01, "1", key=f"k{number}") for number in range(9)],
    ),
    "finished_total goes back": ("finished_total is lower", [queue(0, 5), queue(1, 4)]),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_history_is_found(name: str) -> None:
    words, operations = IMPOSSIBLE[name]
    found = violations(*operations, complete=any(word in words for word in ("came", "no stream")))
    assert any(words in one for one in found), found


def test_a_job_that_is_never_seen_to_end_is_found_if_the_run_waited_for_it() -> None:
    assert "never seen to end" in violations(SUBMITTED, complete=True)[0]
    assert violations(SUBMITTED) == []


POSSIBLE: dict[str, list[Operation]] = {
    "nothing": [],
    "a plain life": [
        submit(0, 1, **WITH_WEBHOOK),
        read(1, 2, "Q0"),
        read(3, 4, "P1"),
        END,
        read(20, 21, "C1"),
        follow(2, past(3, 1, "Q0"), event(4, 2, "P1"), event(8, 3, "C1")),
        webhook(9, "C1"),
        webhook(10, "C1"),
    ],
    "answers that overlap come in any order": [
        SUBMITTED,
        read(2, 5, "P1"),
        read(3, 6, "Q0"),
        read(5, 9, "C1"),
        read(6, 9.5, "P1"),
    ],
    "a submission is answered after its job has ended": [submit(0, 9.5), read(2, 3, "P1"), END],
    "a lost attempt": [
        SUBMITTED,
        read(2, 3, "P1"),
        read(4, 5, "Q1"),
        read(6, 7, "P2"),
        read(8, 9, "C2"),
    ],
    "a dead letter": [
        SUBMITTED,
        *(read(at, at + 0.5, state) for at, state in enumerate(("P1", "Q1", "P2", "Q2", "P3"), 2)),
        read(9, 10, "F3"),
    ],
    "cancelled while it was queued again": [SUBMITTED, read(2, 3, "Q1"), cancelled(4, 5, "X1")],
    "a cancel overtakes a read": [SUBMITTED, cancelled(2, 5), read(4, 6, "P1", attempts=1)][:2],
    "a lost cancel takes effect late": [
        SUBMITTED,
        lost(Kind.CANCEL, 2, 3, task_id="t1"),
        read(4, 5, "P1"),
        read(20, 21, "X1"),
        refused_cancel(22, 23, "cancelled"),
    ],
    "a cancel that was answered with 503 took effect": [
        SUBMITTED,
        refused(Kind.CANCEL, 2, 3, 503, task_id="t1", code="redis_unavailable", retry_after="2"),
        read(4, 5, "X0"),
    ],
    "two cancels, of which one is refused": [
        SUBMITTED,
        cancelled(2, 5),
        refused_cancel(3, 4, "cancelled"),
    ],
    "lost submissions and the same job": [
        lost(Kind.SUBMIT, 0, 1, key="k1"),
        refused(Kind.SUBMIT, 2, 3, 503, code="redis_unavailable", retry_after="2", key="k1"),
        submit(5, 6, "P1", status=200),
        submit(7, 8, "C1", status=200),
    ],
    "two submissions race": [submit(0, 3), submit(1, 2, status=200)],
    "a stream that is resumed in the middle": [
        SUBMITTED,
        follow(1, event(2, 1, "Q0"), event(3, None, "Q0")),
        follow(4, past(5, 2, "P1"), past(5, 3, "Q1"), event(5, 4, "P2"), after=1),
        follow(6, event(7, 5, "C2"), after=4),
        follow(8, after=5),
        read(9, 10, "C2"),
    ],
    "a job is unknown once its result has expired": [
        SUBMITTED,
        END,
        refused(Kind.READ, TTL_SECONDS + 50, TTL_SECONDS + 51, 404, task_id="t1"),
        refused(Kind.READ, TTL_SECONDS + 52, TTL_SECONDS + 53, 404, task_id="t1"),
    ],
    "somebody who comes back too early is refused for long": [
        full(float(second), second + 0.5, "30") for second in range(100)
    ],
    "a full queue estimates well": [
        *(queue(0.5 * second, 2 * second) for second in range(40)),
        *(full(0.1 * number, 0.1 * number + 0.01, "3", key=f"k{number}") for number in range(9)),
    ],
    "a full queue estimates badly while Redis is away": [
        *(queue(0.5 * second, second // 50) for second in range(2000)),
        *(full(0.1 * number, 0.1 * number + 0.01, "1", key=f"k{number}") for number in range(9)),
        refused(Kind.READ, 2, 3, 503, code="redis_unavailable", retry_after="2"),
    ],
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_a_possible_history_is_accepted(name: str) -> None:
    assert violations(*POSSIBLE[name]) == []


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    operations = POSSIBLE["a plain life"]
    with Recorder(path, result_ttl_seconds=TTL_SECONDS, max_attempts=3) as recorder:
        for one in operations:
            recorder.record(one)
        history = recorder.finish()
    with path.open() as lines:
        assert History.from_lines(lines) == history
    assert [one.number for one in history.operations] == list(range(1, len(operations) + 1))
    assert history.complete
    assert json.loads(path.read_text().splitlines()[1]) == asdict(history.operations[0])
    assert summary(history).startswith("8 operations (1 submit, 4 read")
