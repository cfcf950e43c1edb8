"""Owns what a worker counts: memory that its pool processes write and its parent reads.

Every pool process has a row of its own, at its place in the pool, so no row has two writers and no
lock is needed. A process that dies leaves its row to the one that takes its place: counters never
go backwards while the worker lives. The parent has the first row, for what it sees from outside.

| in a row | what |
| --- | --- |
| per histogram | one cell a bucket (not cumulative) and one above the last, then the sum |
| per outcome | attempts |
| per total | bytes, pixels, detections; batches, and jobs in them |

Cells are 64-bit floats, exact for counts up to 2^53, and written in one piece.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STAGES = ("queue", "decode", "infer", "draw")
"""The parts of a job's time, named as in `timings_ms`."""
HISTOGRAMS = (*STAGES, "total")
OUTCOMES = ("completed", "failed", "timeout", "internal", "worker_lost", "lease_lost")
"""How attempts end. `failed`: with an error that was committed; `lease_lost`: committed nothing."""
TOTALS = ("bytes", "pixels", "detections", "batches", "batch_jobs")

BUCKETS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    # Upwards of a few seconds only waiting in the queue takes so long.
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)

_SPAN = len(BUCKETS_SECONDS) + 2
_OUTCOMES_AT = _SPAN * len(HISTOGRAMS)
_TOTALS_AT = _OUTCOMES_AT + len(OUTCOMES)
_CELLS = _TOTALS_AT + len(TOTALS)
_CELL_BYTES = 8


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations up to each of `BUCKETS_SECONDS`, cumulative, the last one being all of them."""

    counts: tuple[float, ...]
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class Totals:
    """All rows of a worker summed up."""

    histograms: dict[str, Histogram]
    outcomes: dict[str, float]
    totals: dict[str, float]


class Row:
    """The cells of one writer."""

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def completed(
        self, timings_ms: Mapping[str, float], *, size_bytes: int, pixels: int, detections: int
    ) -> None:
        """Count an attempt whose result was committed."""
        cells = self._cells
        for start, name in enumerate(HISTOGRAMS):
            seconds = timings_ms[name] / 1000
            cells[start * _SPAN + bisect_left(BUCKETS_SECONDS, seconds)] += 1
            cells[start * _SPAN + _SPAN - 1] += seconds
        cells[_TOTALS_AT] += size_bytes
        cells[_TOTALS_AT + 1] += pixels
        cells[_TOTALS_AT + 2] += detections
        self.ended("completed")

    def batched(self, jobs: int) -> None:
        """Count a micro-batch of so many jobs."""
        self._cells[_TOTALS_AT + 3] += 1
        self._cells[_TOTALS_AT + 4] += jobs

    def ended(self, outcome: str) -> None:
        """Count an attempt's end; `outcome` is one of `OUTCOMES`."""
        self._cells[_OUTCOMES_AT + OUTCOMES.index(outcome)] += 1


class Tally:
    """Made before the fork, so that parent and children look at the same memory.

    Rows that nobody writes take no memory: the system gives pages at the first write.
    """

    def __init__(self, processes: int) -> None:
        size = (processes + 1) * _CELLS * _CELL_BYTES
        self._cells = memoryview(mmap.mmap(-1, size)).cast("d")

    def parent(self) -> Row:
        return self._row(0)

    def process(self, index: int) -> Row:
        """The row of the pool process at a place in the pool, counted from 0."""
        return self._row(index + 1)

    def _row(self, number: int) -> Row:
        return Row(self._cells[number * _CELLS : (number + 1) * _CELLS])

    def read(self, processes: int) -> Totals:
        """Sum up the parent's row and those of the first `processes` places.

        A row may change meanwhile: a histogram's count is therefore taken from its buckets, so that
        the two always agree.
        """
        rows = self._cells[: (processes + 1) * _CELLS].tolist()
        sums = [float(sum(rows[cell::_CELLS])) for cell in range(_CELLS)]
        return Totals(
            {name: _histogram(sums, start * _SPAN) for start, name in enumerate(HISTOGRAMS)},
            dict(zip(OUTCOMES, sums[_OUTCOMES_AT:_TOTALS_AT], strict=True)),
            dict(zip(TOTALS, sums[_TOTALS_AT:], strict=True)),
        )


def _histogram(sums: Sequence[float], start: int) -> Histogram:
    counts, so_far = [], 0.0
    for count in sums[start : start + _SPAN - 1]:
        so_far += count
        counts.append(so_far)
    return Histogram(tuple(counts), sums[start + _SPAN - 1])
