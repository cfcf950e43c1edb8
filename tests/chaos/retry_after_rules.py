"""Rules about `Retry-After`: it is there, within bounds, and worth believing.

What is checked:

- every 429 and 503 has it, in whole seconds from 1 to 300, and not above what the code announces
  for that kind of refusal
- who comes back no earlier than announced, again and again, is let in within `PATIENCE_SECONDS`
- the time that a full queue announces is the one in which a tenth of it drains. It is compared with
  the drain that `/queue` showed afterwards. The estimate is a mean of the past, and faults change
  the rate. So only the majority of these refusals is judged, with wide bounds (`fits`), and only
  those after which the service stayed available until a tenth had drained

What is not checked: whether a shorter time would have done for the other refusals (Redis away, the
gateway's bounds), whose times are constants; and estimates below a second, which are announced as
1.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.chaos.history import Kind, Operation, Outcome

SHORTEST_SECONDS, LONGEST_SECONDS = 1, 300

CONSTANTS = {
    "background_task_down": 2,
    "gateway_busy": 1,
    "no_worker_ready": 5,
    "redis_unavailable": 10,
    "too_many_connections": 5,
}
"""Most seconds of the refusals that announce a constant. (`redis_unavailable` would announce more
if Redis reached its memory limit, which no chaos run does.)"""

PATIENCE_SECONDS = 60.0
"""Longer than any fault of a chaos run keeps uploads out."""

FACTOR, SPARE_SECONDS = 4.0, 4.0
FEWEST_JUDGED = 5

_WAITING = re.compile(r"\((\d+) jobs waiting\)")


def fits(announced: float, seconds: float) -> bool:
    """Whether a wait of `seconds` and the announced one are about the same."""
    longer, shorter = max(announced, seconds), min(announced, seconds)
    return longer <= FACTOR * shorter + SPARE_SECONDS


def announced_seconds(operation: Operation) -> int | None:
    """The `Retry-After` of a refusal; None if there is none, or it is not a number."""
    return int(operation.retry_after) if operation.retry_after.isdecimal() else None


def within_bounds(operations: Iterable[Operation]) -> Iterator[str]:
    for one in operations:
        if one.outcome is not Outcome.REFUSED or one.status not in (429, 503):
            continue
        seconds = announced_seconds(one)
        most = CONSTANTS.get(one.code, LONGEST_SECONDS)
        if seconds is None:
            yield f"{one}: Retry-After is {one.retry_after or 'missing'}"
        elif not SHORTEST_SECONDS <= seconds <= most:
            yield f"{one}: Retry-After is {seconds}, not within {SHORTEST_SECONDS} and {most}"


def the_obedient_are_let_in(operations: Iterable[Operation]) -> Iterator[str]:
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        if one.kind is Kind.SUBMIT:
            by_key[one.key].append(one)
    for submissions in by_key.values():
        yield from _waits_in_vain(sorted(submissions, key=lambda one: one.invoked))


def _waits_in_vain(submissions: Sequence[Operation]) -> Iterator[str]:
    """The waits of one client. One that comes back too early begins anew, and so does one that gets
    no answer, since nobody has told it to wait."""
    first: Operation | None = None
    comes_back_at = 0.0
    for one in submissions:
        seconds = announced_seconds(one)
        if one.outcome is not Outcome.REFUSED or seconds is None:
            first = None
            continue
        if first is None or one.invoked < comes_back_at:
            first = one
        comes_back_at = one.returned + seconds
        if one.returned - first.invoked > PATIENCE_SECONDS:
            yield f"{one}: still refused after waiting as told since {first}"
            first = None


def full_queues_estimate_well(operations: Sequence[Operation]) -> Iterator[str]:
    judged = [verdict for one in operations if (verdict := _judged(one, operations)) is not None]
    wrong = [words for good, words in judged if not good]
    if len(judged) >= FEWEST_JUDGED and 2 * len(wrong) > len(judged):
        yield f"{len(wrong)} of {len(judged)} refusals of a full queue estimate badly: {wrong[0]}"


def _judged(refusal: Operation, operations: Sequence[Operation]) -> tuple[bool, str] | None:
    """Whether a full queue's estimate was good, and in words; None if that cannot be said."""
    waiting = _WAITING.search(str(refusal.value.get("detail")))
    seconds = announced_seconds(refusal)
    if refusal.code != "queue_full" or not waiting or seconds is None:
        return None
    samples = [one for one in operations if one.kind is Kind.QUEUE and one.outcome is Outcome.OK]
    drained_at = _drained_at(refusal, int(waiting[1]) / 10, samples)
    if drained_at is None or _was_away(operations, refusal.returned, drained_at):
        return None
    took = drained_at - refusal.returned
    return fits(seconds, took), f"{refusal} announced {seconds} s, a tenth drained in {took:.1f} s"


def _drained_at(refusal: Operation, jobs: float, samples: Iterable[Operation]) -> float | None:
    """When so many jobs had ended after the refusal, by the count in `/queue`; None if it is not
    known."""
    later = [one for one in samples if one.invoked > refusal.returned]
    if not later:
        return None
    before = int(later[0].value["finished_total"])
    for one in later[1:]:
        if int(one.value["finished_total"]) >= before + jobs:
            return one.returned
    return None


def _was_away(operations: Iterable[Operation], since: float, until: float) -> bool:
    """Whether anybody got no answer, or was told that a part is away."""
    away = (Outcome.UNKNOWN, Outcome.UNSENT)
    return any(
        since < one.returned < until and (one.outcome in away or one.code in CONSTANTS)
        for one in operations
    )
