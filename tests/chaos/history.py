"""Records what the clients of a chaos run saw: one operation for each request, as JSON lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any


class Kind(StrEnum):
    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    FOLLOW = "follow"
    """One connection to a job's event stream."""
    WEBHOOK = "webhook"
    """One post that the receiver got."""
    QUEUE = "queue"


class Outcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    """An error with a code. After a 503 the request may still take effect: it may wait in the
    buffer of a Redis that is paused."""
    UNKNOWN = "unknown"
    """The answer was lost. The request may have taken effect, or may still do so."""
    UNSENT = "unsent"
    """There was no connection, so the service never saw the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request and what its client learnt, from `invoked` to `returned` in seconds of the
    recorder's clock.

    - `process`: the client; it may have several operations at once
    - `key`: the idempotency key of a submission
    - `sent`: what else the request said that matters here
    - `retry_after`: the header as it came
    - `value`: the body. A picture is replaced by its digest. An event stream has `events`, each
      with `at`, `id` and `data`; a webhook has `id`, `signed` and `body`
    """

    number: int
    process: str
    kind: Kind
    invoked: float
    returned: float
    outcome: Outcome = Outcome.OK
    task_id: str = ""
    key: str = ""
    sent: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    code: str = ""
    retry_after: str = ""
    value: dict[str, Any] = field(default_factory=dict)

    @property
    def may_take_effect(self) -> bool:
        """Whether the request may have changed something, or may still do so."""
        refused = self.outcome is Outcome.REFUSED and self.status < 500
        return not refused and self.outcome is not Outcome.UNSENT

    def __str__(self) -> str:
        answer = self.value.get("status") if self.outcome is Outcome.OK else self.code
        return (
            f"#{self.number} {self.kind} by {self.process} "
            f"[{self.invoked:.3f}, {self.returned:.3f}] -> {answer or self.outcome}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Operations in the order in which they returned.

    - `complete`: the run waited until every job had ended and every webhook had been sent
    """

    operations: tuple[Operation, ...]
    result_ttl_seconds: float
    max_attempts: int
    complete: bool = False

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> History:
        """From what `Recorder` wrote: operations, and lines with facts about the whole run."""
        facts: dict[str, Any] = {}
        operations = []
        for line in lines:
            entry = json.loads(line)
            if "number" in entry:
                kind, outcome = Kind(entry.pop("kind")), Outcome(entry.pop("outcome"))
                operations.append(Operation(kind=kind, outcome=outcome, **entry))
            else:
                facts |= entry
        return cls(operations=tuple(operations), **facts)


class Recorder:
    """Appends operations to a history and to its file. Threads may share it."""

    def __init__(self, path: Path, *, result_ttl_seconds: float, max_attempts: int) -> None:
        self._began = time.monotonic()
        self._file = path.open("w")
        self._lock = threading.Lock()
        self._operations: list[Operation] = []
        self._facts: dict[str, Any] = {
            "result_ttl_seconds": result_ttl_seconds,
            "max_attempts": max_attempts,
        }
        self._write(self._facts)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def now(self) -> float:
        """Seconds since the recorder was made."""
        return round(time.monotonic() - self._began, 6)

    def record(self, operation: Operation) -> Operation:
        """Append an operation; returns it with its number."""
        with self._lock:
            numbered = replace(operation, number=len(self._operations) + 1)
            self._operations.append(numbered)
            self._write(asdict(numbered))
        return numbered

    def operations(self) -> list[Operation]:
        """What was recorded so far."""
        with self._lock:
            return list(self._operations)

    def finish(self) -> History:
        """The history of a run that has waited for every job and every webhook."""
        with self._lock:
            self._write({"complete": True})
            return History(operations=tuple(self._operations), complete=True, **self._facts)

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
