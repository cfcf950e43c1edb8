"""Rules about what the service sends by itself: event streams and webhooks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shared.job.record import JobState
from tests.chaos.history import History, Kind, Operation, Outcome
from tests.chaos.observations import Observation, of_event

EventId = tuple[int, int]
"""An id of an event in the order of the stream: milliseconds, and a number within one."""

START: EventId = (0, 0)
"""Before all events."""


def event_id(text: str) -> EventId:
    """The id as a pair, whose order is that of the stream; `START` for an empty text."""
    milliseconds, _, number = text.partition("-")
    return int(milliseconds or 0), int(number or 0)


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a job's state, with the id that resuming goes by."""

    id: EventId
    seen: Observation


def numbered_events(follow: Operation) -> list[Event]:
    """The events of one stream that have an id. Those without tell the position in the queue."""
    return [
        Event(event_id(event["id"]), of_event(follow, event))
        for event in follow.value.get("events", ())
        if event["id"]
    ]


# -- one stream -----------------------------------------------------------------------------------


def stream_is_in_order(follow: Operation) -> Iterator[str]:
    """Ids increase from the one that the client resumed after, states move forward, and nothing
    follows the end."""
    before = event_id(follow.sent.get("last_event_id", ""))
    for event in numbered_events(follow):
        if event.id <= before:
            yield f"{event.seen}: event {event.id} repeats, or is out of order after {before}"
        before = event.id
    shown = [of_event(follow, event) for event in follow.value.get("events", ())]
    for one, following in pairwise(shown):
        if following.rank < one.rank:
            yield f"{following}: a stream goes back from {one.state} to {following.state}"
        if one.ended:
            yield f"{following}: an event after the end"


# -- all streams of a job -------------------------------------------------------------------------


def streams_agree(follows: Sequence[Operation], history: History) -> Iterator[str]:
    """All streams of a job are parts of one log without gaps: it begins with `queued`, each state
    follows from the one before, and each stream has all of the log between the id it was resumed
    after and the last one it got."""
    log: dict[EventId, Observation] = {}
    for follow in follows:
        for event in numbered_events(follow):
            known = log.setdefault(event.id, event.seen)
            if (known.state, known.attempts) != (event.seen.state, event.seen.attempts):
                yield f"event {event.id} differs: {known} and {event.seen}"
    if history.complete and log and not log[max(log)].ended:
        yield f"{log[max(log)]}: no stream has the end"
    for follow in follows:
        yield from _without_gaps(follow, log)


def _without_gaps(follow: Operation, log: Mapping[EventId, Observation]) -> Iterator[str]:
    events = numbered_events(follow)
    after = event_id(follow.sent.get("last_event_id", ""))
    got = {event.id for event in events}
    for one in sorted(log):
        if after < one <= max(got, default=after) and one not in got:
            yield f"{follow}: event {one} is missing, which is in {log[one]}"
    seen = [event.seen for event in events]
    if after in log:
        seen.insert(0, log[after])
    elif seen and after == START and (seen[0].state, seen[0].attempts) != (JobState.QUEUED, 0):
        yield f"{seen[0]}: the first event is not `queued`"
    for one, following in pairwise(seen):
        if not _may_follow(one, following):
            yield f"{following}: cannot come right after {one.state} ({one.attempts} attempts)"


def _may_follow(one: Observation, following: Observation) -> bool:
    if following.state is JobState.PROCESSING:
        return one.state is JobState.QUEUED and following.attempts == (one.attempts or 0) + 1
    if following.attempts != one.attempts or one.ended:
        return False
    if one.state is JobState.PROCESSING:
        return True
    return following.state in (JobState.CANCELLED, JobState.EXPIRED)


# -- webhooks -------------------------------------------------------------------------------------


def webhooks_arrive(operations: Sequence[Operation], history: History) -> Iterator[str]:
    """Each job with a webhook sends it, at least once, signed, when it has ended, and with the same
    bytes each time. Other jobs send none. (That it tells the job's true end follows from the rule
    that a job ends once.)"""
    wanted: dict[str, Operation] = {}
    for one in operations:
        if one.kind is Kind.SUBMIT and one.outcome is Outcome.OK and one.sent.get("webhook_url"):
            wanted.setdefault(one.task_id, one)
    posts: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        if one.kind is Kind.WEBHOOK:
            posts[one.value["id"]].append(one)
            yield from _wrong_webhook(one)
    for task_id, sent in posts.items():
        if task_id not in wanted:
            yield f"{sent[0]}: nobody asked for this webhook"
        for again in sent[1:]:
            if again.value["body"] != sent[0].value["body"]:
                yield f"{again}: not the bytes of {sent[0]}"
    if history.complete:
        for task_id, submission in wanted.items():
            if task_id not in posts:
                yield f"{submission}: its webhook never came"


def _wrong_webhook(post: Operation) -> Iterator[str]:
    if not post.value["signed"]:
        yield f"{post}: the signature is wrong"
        return
    notice: dict[str, Any] = json.loads(post.value["body"])
    job = notice["data"]
    if not JobState(job["status"]).terminal:
        yield f"{post}: a webhook of a job that is {job['status']}"
    if notice["type"] != f"job.{job['status']}" or job["task_id"] != post.value["id"]:
        yield f"{post}: type or id does not fit its job"
