"""Accounts for every image of a stress run."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from yolo_queue import JobFields


@dataclass(slots=True)
class Shot:
    """One image and its job. Times are seconds since the run began; `submit_seconds` is the
    duration of the request that was accepted, without the tries before it."""

    index: int
    bytes: int = 0
    started: float = 0.0
    submit_seconds: float = 0.0
    accepted: float | None = None
    ended: float | None = None
    task_id: str = ""
    state: str = "planned"
    """`planned`, `sending`, `refused`, `lost` (accepted, but the service does not know the id),
    `unfinished` (given up before the job ended), or the last known state of the job."""
    code: str = ""
    attempts: int = 0
    refusals: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    detections: int = 0
    finished_at: str = ""
    looked_again: bool = False
    changed: str = ""
    """How the ended job differed when it was read again; empty if it did not."""

    def end(self, job: JobFields, now: float) -> None:
        """Record how its job ended."""
        self.state, self.ended, self.attempts = job.status, now, job.attempts
        self.finished_at = str(job.data.get("finished_at"))
        self.timings_ms = dict(job.timings_ms)
        self.detections = len(job.data.get("detections") or ())
        if error := job.error:
            self.code = error.code

    def compare(self, job: JobFields) -> None:
        """Compare with the ended job as read again: a job ends once."""
        self.looked_again = True
        before = (self.state, self.finished_at, self.attempts, self.detections)
        now = (
            job.status,
            str(job.data.get("finished_at")),
            job.attempts,
            len(job.data.get("detections") or ()),
        )
        if now != before:
            self.changed = f"{before} became {now}"


@dataclass(frozen=True, slots=True)
class Sample:
    """The queue at one moment of the run."""

    at: float
    depth: int
    in_flight: int
    ready_processes: int


def reconcile(shots: Sequence[Shot]) -> dict[str, Any]:
    """Count every image in exactly one place: submitted = accepted + refused, and accepted =
    completed + failed + cancelled + expired + lost + unfinished. `balanced` says whether these
    hold, `ok` that they do and nothing was lost, unfinished, duplicated or ended twice."""
    states = Counter(shot.state for shot in shots)
    ids = Counter(shot.task_id for shot in shots if shot.task_id)
    accepted = sum(shot.accepted is not None for shot in shots)
    ended = {name: states[name] for name in ("completed", "failed", "cancelled", "expired")}
    account: dict[str, Any] = {
        "submitted": len(shots),
        "accepted": accepted,
        "refused": states["refused"],
        **ended,
        "lost": states["lost"],
        "unfinished": states["unfinished"],
        "duplicated": sum(count - 1 for count in ids.values()),
        "ended_twice": sum(bool(shot.changed) for shot in shots),
        "looked_at_again": sum(shot.looked_again for shot in shots),
        "more_than_one_attempt": sum(shot.attempts > 1 for shot in shots),
        "refused_by_code": dict(Counter(s.refusals[-1] for s in shots if s.state == "refused")),
        "refusals_by_code": dict(Counter(code for shot in shots for code in shot.refusals)),
        "failed_by_code": dict(Counter(shot.code for shot in shots if shot.state == "failed")),
    }
    account["balanced"] = (
        account["submitted"] == accepted + account["refused"]
        and accepted == sum(ended.values()) + account["lost"] + account["unfinished"]
    )
    account["ok"] = account["balanced"] and not any(
        account[name] for name in ("lost", "unfinished", "duplicated", "ended_twice")
    )
    return account


def latencies(shots: Iterable[Shot]) -> dict[str, dict[str, float]]:
    """Distributions in seconds: `submit` of the accepted requests, `end_to_end` from the first
    byte sent to the result in hand, and the stages that the service measured."""
    shots = list(shots)
    done = [shot for shot in shots if shot.state == "completed" and shot.ended is not None]
    figures = {
        "submit": [shot.submit_seconds for shot in shots if shot.accepted is not None],
        "end_to_end": [shot.ended - shot.started for shot in done if shot.ended is not None],
    }
    for part in ("queue", "decode", "infer", "draw", "total"):
        figures[part] = [s.timings_ms[part] / 1000 for s in done if part in s.timings_ms]
    return {name: distribution(values) for name, values in figures.items() if values}


def distribution(values: Sequence[float]) -> dict[str, float]:
    """Count, mean, median, 95th and 99th percentile, largest."""
    # A single value has no quantiles, but is all of them.
    several = values if len(values) > 1 else [*values, *values]
    percentiles = statistics.quantiles(several, n=100, method="inclusive")
    return {
        "count": len(values),
        "mean": statistics.fmean(values),
        "p50": percentiles[49],
        "p95": percentiles[94],
        "p99": percentiles[98],
        "max": max(values),
    }


def per_second(times: Iterable[float], length: float, *, bins: int = 50) -> list[list[float]]:
    """[middle of the bin in s, events a second] over `length` seconds; a bin has at least 0.5 s."""
    width = max(length / bins, 0.5)
    counts = [0] * max(1, math.ceil(length / width))
    for moment in times:
        counts[min(int(moment / width), len(counts) - 1)] += 1
    return [
        [round((number + 0.5) * width, 3), round(count / width, 3)]
        for number, count in enumerate(counts)
    ]
