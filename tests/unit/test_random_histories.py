"""The history checker accepts every history of a simple model, and finds one corruption in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.chaos.history import Kind, Operation, Outcome
from tests.support.histories import (
    cancelled,
    event,
    follow,
    lost,
    past,
    read,
    refused,
    refused_cancel,
    submit,
    violations,
    webhook,
)

WEBHOOK = {"webhook_url": "http://receiver/"}
ENDINGS = ("C", "F", "X")


def _lives() -> Iterator[list[str]]:
    """The states of a job in order, for every way in which it can end."""
    for lost_attempts in range(3):
        last = lost_attempts + 1
        begin = [state for n in range(lost_attempts) for state in (f"Q{n}", f"P{n + 1}")]
        begin.append(f"Q{lost_attempts}")
        yield [*begin, f"X{lost_attempts}"]
        for end in ENDINGS:
            yield [*begin, f"P{last}", f"{end}{last}"]


@dataclass(frozen=True)
class Life:
    """The job is in `states[n]` for 10 seconds from `10 * n`, and in the last for ever."""

    states: Sequence[str]

    def at(self, moment: float) -> str:
        return self.states[min(int(moment // 10), len(self.states) - 1)]

    @property
    def ended_at(self) -> float:
        return 10.0 * (len(self.states) - 1)

    @property
    def end(self) -> str:
        return self.states[-1]


Draw = Callable[[st.SearchStrategy[Any]], Any]
DELAY = st.floats(0, 25)


def _around(draw: Draw, moment: float) -> tuple[float, float]:
    """An operation that took effect at this moment."""
    return moment - draw(DELAY), moment + draw(DELAY)


def _stream(draw: Draw, life: Life) -> Operation:
    """The events from some id on. The gateway looks at the log at growing moments: what it has
    missed comes without the job, the latest event with it."""
    after = draw(st.integers(0, len(life.states) - 1))
    moment = 10.0 * after + draw(st.floats(0, 60))
    events: list[dict[str, Any]] = []
    sent, at = after, moment
    while sent < len(life.states) and len(events) < draw(st.integers(1, 8)):
        reached = min(int(moment // 10) + 1, len(life.states))
        at = max(at, moment + draw(st.floats(0, 3)))
        events += [past(at, n + 1, life.states[n]) for n in range(sent, reached - 1)]
        if reached > sent:
            events.append(event(at, reached, life.states[reached - 1]))
        sent = max(sent, reached)
        moment += draw(st.floats(0, 20))
    opened = (10.0 * after if not events else events[0]["at"] - 3) - draw(DELAY)
    return follow(min(opened, 10.0 * after), *events, after=after or None)


@st.composite
def histories(draw: Draw) -> tuple[Life, list[Operation]]:
    """A job's life and what clients saw of it, each request at one moment within its interval."""
    life = Life(draw(st.sampled_from(list(_lives()))))
    created = draw(st.floats(0, 9))
    made = (created - draw(DELAY), created + draw(DELAY))
    operations = [submit(*made, sent=WEBHOOK)]
    if draw(st.booleans()):
        operations = [
            replace(operations[0], outcome=Outcome.UNKNOWN, status=0, task_id="", value={})
        ]
    moments = st.floats(created, life.ended_at + 30)
    for moment in draw(st.lists(moments, max_size=12)):
        operations.append(read(*_around(draw, moment), life.at(moment)))
    for moment in draw(st.lists(moments, min_size=1, max_size=4)):
        state = life.at(moment)
        operations.append(submit(*_around(draw, moment), state, status=200, sent=WEBHOOK))
    if life.end.startswith("X"):
        answer = cancelled(*_around(draw, life.ended_at), life.end)
        silent = lost(Kind.CANCEL, answer.invoked, answer.returned, task_id="t1")
        operations.append(draw(st.sampled_from((answer, silent))))
    ended = {"C": "completed", "F": "failed", "X": "cancelled"}[life.end[0]]
    for late in draw(st.lists(st.floats(0, 20), max_size=2)):
        operations.append(refused_cancel(*_around(draw, life.ended_at + late), ended))
    operations += [_stream(draw, life) for _ in range(draw(st.integers(0, 3)))]
    for late in draw(st.lists(DELAY, min_size=1, max_size=3)):
        operations.append(webhook(life.ended_at + late, life.end))
    return life, operations


def _witnesses(life: Life, one: Operation) -> list[Operation]:
    """Reads that took no time, right before and right after an operation."""
    before, after = one.invoked - 0.001, one.returned + 0.001
    return [
        read(moment, moment, life.at(max(moment, 0))) for moment in (before, after) if moment > 9
    ]


Corruption = Callable[[Draw, Life, list[Operation]], list[Operation]]


def _of(operations: list[Operation], kind: Kind) -> list[Operation]:
    return [one for one in operations if one.kind is kind]


def another_time(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    """A read shows a state that the job had only before it or only after it."""
    moment = draw(st.floats(20, life.ended_at + 40))
    invoked, returned = moment, moment + draw(st.floats(0, 5))
    first, last = (life.states.index(life.at(at)) for at in (invoked - 0.001, returned + 0.001))
    wrong = [n for n in range(len(life.states)) if not first <= n <= last]
    assume(wrong)
    liar = read(invoked, returned, life.states[draw(st.sampled_from(wrong))])
    return [*operations, liar, *_witnesses(life, liar)]


def another_end(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    other = draw(st.sampled_from([one for one in ENDINGS if one != life.end[0]]))
    at = draw(st.floats(0, 90))
    return [*operations, read(at, at + 5, f"{other}{max(1, int(life.end[1:]))}")]


def another_result(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    assume(life.end.startswith("C"))
    name = draw(st.sampled_from(("detections", "finished_at", "created_at", "started_at")))
    at = draw(st.floats(life.ended_at, 90))
    return [*operations, read(at, at + 5, life.end, **{name: "another"})]


def an_unknown_job(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    at = draw(st.floats(200, 300))
    return [*operations, refused(Kind.READ, at, at + 1, 404, task_id="t1")]


def another_id(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    at = draw(st.floats(0, 90))
    return [*operations, submit(at, at + 5, life.end, status=200, sent=WEBHOOK, task_id="t2")]


def a_lost_event(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    whole = follow(0, *(event(100, n + 1, state) for n, state in enumerate(life.states)))
    events = list(whole.value["events"])
    del events[draw(st.integers(0, len(events) - 2))]
    return [*operations, whole, replace(whole, value={"events": events})]


def a_repeated_event(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    after = draw(st.integers(1, len(life.states)))
    return [*operations, follow(90, event(100, after, life.states[after - 1]), after=after)]


def a_webhook_of_other_bytes(
    draw: Draw, life: Life, operations: list[Operation]
) -> list[Operation]:
    one = draw(st.sampled_from(_of(operations, Kind.WEBHOOK)))
    body = json.dumps({**json.loads(one.value["body"]), "timestamp": "another"})
    return [*operations, replace(one, value={**one.value, "body": body})]


def a_webhook_too_early(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    at = draw(st.floats(-20, life.ended_at - 0.01))
    return [
        *operations,
        webhook(at, life.end),
        read(at + 0.001, at + 0.001, life.at(max(at, 0))),
    ]


def a_forged_webhook(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    return [*operations, webhook(draw(DELAY) + life.ended_at, life.end, signed=False)]


def no_time_to_retry(draw: Draw, life: Life, operations: list[Operation]) -> list[Operation]:
    header = draw(st.sampled_from(("", "0", "-1", "301", "soon", "1.5")))
    refusal = refused(Kind.SUBMIT, 0, 1, 503, code="queue_full", retry_after=header, key="k2")
    return [*operations, refusal]


CORRUPTIONS: tuple[Corruption, ...] = (
    another_time,
    another_end,
    another_result,
    an_unknown_job,
    another_id,
    a_lost_event,
    a_repeated_event,
    a_webhook_of_other_bytes,
    a_webhook_too_early,
    a_forged_webhook,
    no_time_to_retry,
)


@settings(max_examples=150)
@given(histories())
def test_every_history_of_the_model_is_accepted(drawn: tuple[Life, list[Operation]]) -> None:
    _, operations = drawn
    assert violations(*operations) == []


@settings(max_examples=250)
@given(histories(), st.sampled_from(CORRUPTIONS), st.data())
def test_one_corruption_is_found(
    drawn: tuple[Life, list[Operation]], corrupt: Corruption, data: st.DataObject
) -> None:
    life, operations = drawn
    assert violations(*corrupt(data.draw, life, operations)) != []
