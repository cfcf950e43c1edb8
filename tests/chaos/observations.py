"""Says what each operation of a history tells about a job, and about which moment."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.job.record import JobState
from tests.chaos.history import Kind, Operation, Outcome

ENDED = 1 << 30
"""The rank of every terminal state: it comes after all others."""

_ALREADY = re.compile(r"already (\w+)")
"""How the refusal to cancel a job names its state."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One state of one job, as a client learnt it.

    If it is `current`, the job was in this state at some moment between `invoked` and `returned`.
    Otherwise it is a past event of a stream: the job was in this state at some moment before
    `returned`. `job` is the job object, or the part of it that the answer had.
    """

    operation: Operation
    invoked: float
    returned: float
    state: JobState
    attempts: int | None
    job: Mapping[str, Any]
    current: bool = True

    @property
    def ended(self) -> bool:
        return self.state.terminal

    @property
    def rank(self) -> int:
        """Where the state is in a job's life: queued, processing (attempt 1), queued again after
        its loss, processing (attempt 2), and so on until a terminal state."""
        return ENDED if self.ended else rank(self.state, self.attempts or 0)

    @property
    def whole(self) -> bool:
        """Whether the answer had the whole job object."""
        return "created_at" in self.job

    def __str__(self) -> str:
        attempts = "" if self.attempts is None else f", {self.attempts} attempts"
        return f"{self.operation} ({self.state}{attempts})"


def rank(state: JobState, attempts: int) -> int:
    """The rank of a state that is not terminal. Attempts are counted when they start."""
    return 2 * attempts - (state is JobState.PROCESSING)


def observations_by_job(operations: Iterable[Operation]) -> dict[str, list[Observation]]:
    found: dict[str, list[Observation]] = defaultdict(list)
    for operation in operations:
        for observation in observations(operation):
            found[str(observation.job.get("task_id") or operation.task_id)].append(observation)
    return dict(found)


def observations(operation: Operation) -> Iterator[Observation]:
    """What one operation tells about its job."""
    if operation.kind is Kind.FOLLOW:
        for event in operation.value.get("events", ()):
            yield of_event(operation, event)
    elif operation.kind is Kind.WEBHOOK:
        if operation.value["signed"]:
            yield _of_job(operation, json.loads(operation.value["body"])["data"])
    elif operation.outcome is Outcome.OK and operation.kind is not Kind.QUEUE:
        yield _of_job(operation, operation.value)
    elif operation.kind is Kind.CANCEL and operation.status == 409:
        yield from _of_refused_cancel(operation)


def of_event(operation: Operation, event: Mapping[str, Any]) -> Observation:
    """An event with a whole job object is about a moment while the stream was open. One with less
    is history: the gateway sends it to a client that was not connected at the time."""
    data = event["data"]
    whole = "created_at" in data
    attempts = int(data["attempts"] if whole else data.get("attempt", 0))
    state = JobState(data["status"])
    return Observation(
        operation, operation.invoked, event["at"], state, attempts, data, current=whole
    )


def _of_job(operation: Operation, job: Mapping[str, Any]) -> Observation:
    state, attempts = JobState(job["status"]), int(job["attempts"])
    return Observation(operation, operation.invoked, operation.returned, state, attempts, job)


def _of_refused_cancel(operation: Operation) -> Iterator[Observation]:
    if named := _ALREADY.search(str(operation.value.get("detail"))):
        yield Observation(
            operation, operation.invoked, operation.returned, JobState(named[1]), None, {}
        )
