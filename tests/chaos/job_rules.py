"""Rules about a job's states and about who may have changed them, one function each.

Every rule yields what is impossible, in words. An answer shows the job at some moment between the
request and the answer, and that moment is unknown. So one answer may be older than another only if
the two operations overlap in time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

from shared.job.record import JobState
from tests.chaos.history import History, Kind, Operation, Outcome
from tests.chaos.observations import ENDED, Observation, rank

CLOCK_SECONDS = 1.0
"""How far Redis' clock, which times to live are measured by, may be from the recorder's over the
length of a run."""

RESULT_FIELDS = ("model_version", "task", "width", "height", "detections", "image", "timings_ms")
COMPARED_APART = ("status", "image", "links")
"""Event streams have a link instead of the picture, and webhooks have none."""


class Interval(Protocol):
    @property
    def invoked(self) -> float: ...
    @property
    def returned(self) -> float: ...


T = TypeVar("T", bound=Interval)


def outdated(
    answers: Iterable[T], proofs: Iterable[T], value: Callable[[T], int]
) -> Iterator[tuple[T, T]]:
    """Answers with a lower value than a proof that had returned before they were asked for, each
    with the highest such proof."""
    returned = sorted(proofs, key=lambda one: one.returned)
    highest: T | None = None
    following = 0
    for answer in sorted(answers, key=lambda one: one.invoked):
        while following < len(returned) and returned[following].returned < answer.invoked:
            proof = returned[following]
            if highest is None or value(proof) > value(highest):
                highest = proof
            following += 1
        if highest is not None and value(answer) < value(highest):
            yield answer, highest


# -- states ---------------------------------------------------------------------------------------


def states_move_forward(job: Sequence[Observation]) -> Iterator[str]:
    """No answer shows a state older than one that was already seen when it was asked for. A lost
    attempt takes a job from processing back to queued, which counts as forward: one more attempt
    has been used."""
    current = [one for one in job if one.current]
    for answer, newer in outdated(current, job, lambda one: one.rank):
        yield f"{answer} is older than {newer}, which had returned before"


def one_end(job: Sequence[Observation]) -> Iterator[str]:
    """A job ends once: every answer about its end says the same, detections and picture
    included."""
    ends = [one for one in job if one.ended]
    for end in ends[1:]:
        if end.state is not ends[0].state:
            yield f"{end} and {ends[0]}: two terminal states"
    reference: dict[str, tuple[object, Observation]] = {}
    for end in ends:
        facts = {name: value for name, value in end.job.items() if name not in COMPARED_APART}
        picture = end.job.get("image")
        if isinstance(picture, str) and picture.startswith("sha256:"):
            facts["picture"] = picture
        for name, value in facts.items():
            known, first = reference.setdefault(name, (value, end))
            if value != known:
                yield f"{name} differs after the end: {end} and {first}"


def reachable(job: Sequence[Observation], history: History) -> Iterator[str]:
    """Every state that was seen, at whatever time, lies on one path to the job's end. A job
    completes or fails in its last attempt, so it was never queued again after that attempt."""
    for one in job:
        if one.attempts is None:
            continue
        fewest = 0 if one.state in (JobState.QUEUED, JobState.CANCELLED, JobState.EXPIRED) else 1
        most = history.max_attempts - (one.state is JobState.QUEUED)
        if not fewest <= one.attempts <= most:
            yield f"{one}: not between {fewest} and {most} attempts"
    end = next((one for one in job if one.ended and one.attempts is not None), None)
    if end is None:
        return
    ran = end.state in (JobState.COMPLETED, JobState.FAILED)
    last = rank(JobState.PROCESSING if ran else JobState.QUEUED, end.attempts or 0)
    for one in job:
        if last < one.rank < ENDED:
            yield f"{one} cannot be on the way to {end}"


def times_are_stable(job: Sequence[Observation]) -> Iterator[str]:
    """`created_at` never changes, `started_at` only with a new attempt and only forward, and
    `finished_at` is there once the job has ended, and not before."""
    created: dict[str, Observation] = {}
    started: dict[int, tuple[str | None, Observation]] = {}
    for one in job:
        if not one.whole or one.attempts is None:
            continue
        created.setdefault(str(one.job["created_at"]), one)
        known, first = started.setdefault(one.attempts, (one.job.get("started_at"), one))
        if one.job.get("started_at") != known:
            yield f"started_at of one attempt differs: {one} and {first}"
        if (one.attempts > 0) != ("started_at" in one.job):
            yield f"{one}: started_at does not fit the attempts"
        if one.ended != ("finished_at" in one.job):
            yield f"{one}: finished_at does not fit the state"
    if len(created) > 1:
        yield "created_at differs: " + " and ".join(map(str, created.values()))
    times = [(str(at), one) for _, (at, one) in sorted(started.items()) if at]
    for (before, one), (after, other) in pairwise(times):
        if after < before:
            yield f"a later attempt started earlier: {one} and {other}"


def results_belong_to_completed_jobs(job: Sequence[Observation]) -> Iterator[str]:
    """A completed job has its detections, a failed one its error. No other state shows either: a
    cancelled job never has a result."""
    for one in job:
        if not one.whole:
            continue
        if one.state is JobState.COMPLETED:
            if "detections" not in one.job:
                yield f"{one}: no detections"
        elif shown := [name for name in RESULT_FIELDS if name in one.job]:
            yield f"{one} shows {', '.join(shown)}"
        if (one.state is JobState.FAILED) != ("error" in one.job):
            yield f"{one}: the error does not fit the state"


# -- cancelling -----------------------------------------------------------------------------------


def cancelling_is_honest(
    operations: Sequence[Operation], job: Sequence[Observation]
) -> Iterator[str]:
    """One cancel at most succeeds, and it says `cancelled`. A job is cancelled only if somebody
    cancelled it: a request that succeeded, or whose answer was lost. (That all later answers show
    `cancelled`, or the end that a 409 named, follows from the rules about states.)"""
    cancels = [one for one in operations if one.kind is Kind.CANCEL]
    succeeded = [one for one in cancels if one.outcome is Outcome.OK]
    if len(succeeded) > 1:
        yield "cancelled twice: " + " and ".join(map(str, succeeded))
    for one in succeeded:
        if one.value.get("status") != JobState.CANCELLED:
            yield f"{one}: a cancel succeeded and did not cancel"
    first = min((one.invoked for one in cancels if one.may_take_effect), default=math.inf)
    for seen in job:
        if seen.state is JobState.CANCELLED and seen.returned < first:
            yield f"{seen}: cancelled, but by nobody"


# -- being known ----------------------------------------------------------------------------------


def known_until_expired(
    operations: Sequence[Operation], job: Sequence[Observation], history: History
) -> Iterator[str]:
    """An accepted job is found until its time to live after its end is over, and never again
    afterwards."""
    missing = [one for one in operations if one.status == 404]
    if not job:
        return
    known = min(one.returned for one in job)
    # The job had not ended yet at the latest of these moments.
    running = [one.invoked for one in job if one.current and not one.ended]
    earliest_end = max(running, default=min(one.invoked for one in job))
    expires = earliest_end + history.result_ttl_seconds - CLOCK_SECONDS
    for one in missing:
        if known < one.invoked and one.returned < expires:
            yield f"{one}: an accepted job is unknown before its result has expired"
    gone = min((one.returned for one in missing if one.invoked > known), default=None)
    if gone is not None:
        for found in job:
            if found.current and found.invoked > gone and found.operation.kind is not Kind.WEBHOOK:
                yield f"{found}: the job was already unknown"


def every_job_ends(job: Sequence[Observation], history: History) -> Iterator[str]:
    """In a run that waited for all jobs, each was seen to end."""
    if history.complete and not any(one.ended for one in job):
        yield f"never seen to end; last seen in {max(job, key=lambda one: one.returned)}"


# -- submitting -----------------------------------------------------------------------------------


def keys_name_one_job(operations: Iterable[Operation]) -> Iterator[str]:
    """Every answer to submissions with one idempotency key has the same id, one of them at most is
    201, and a repeat (200) needs another submission that may have made the job. An id belongs to
    one key. Lost answers change nothing."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    key_of: dict[str, Operation] = {}
    for operation in operations:
        if operation.kind is Kind.SUBMIT:
            by_key[operation.key].append(operation)
    for submissions in by_key.values():
        answered = [one for one in submissions if one.outcome is Outcome.OK]
        for one in answered[1:]:
            if one.task_id != answered[0].task_id:
                yield f"one key, two jobs: {one} and {answered[0]}"
        for one in answered:
            other = key_of.setdefault(one.task_id, one)
            if other.key != one.key:
                yield f"one job, two keys: {one} and {other}"
        yield from _made_once(submissions, answered)


def _made_once(submissions: Sequence[Operation], answered: Sequence[Operation]) -> Iterator[str]:
    made = [one for one in answered if one.status == 201]
    if len(made) > 1:
        yield "made twice: " + " and ".join(map(str, made))
    for repeat in (one for one in answered if one.status == 200):
        makers = made or [one for one in submissions if one is not repeat and one.may_take_effect]
        if not any(maker.invoked <= repeat.returned for maker in makers):
            yield f"{repeat}: a repeat of nothing"


def answers_are_known(operations: Iterable[Operation]) -> Iterator[str]:
    """No request is answered with 500, and a refusal has a code."""
    for one in operations:
        if one.outcome is Outcome.REFUSED and (one.status == 500 or not one.code):
            yield f"{one}: {one.status} {one.value.get('detail', '')}"


def finished_total_grows(operations: Iterable[Operation]) -> Iterator[str]:
    """The count of ended jobs in `/queue` never goes back."""
    answers = [one for one in operations if one.kind is Kind.QUEUE and one.outcome is Outcome.OK]
    for answer, newer in outdated(answers, answers, lambda one: int(one.value["finished_total"])):
        yield f"{answer}: finished_total is lower than in {newer}"
