"""Decides whether something grows in a run: by the slope of many points, not by two of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

JOBS_UNIT = 1000


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through values against jobs done."""

    mean: float
    slope: float
    """Growth for each 1,000 jobs."""
    uncertainty: float
    """Twice the standard error of the slope."""

    @classmethod
    def through(cls, jobs: Sequence[float], values: Sequence[float]) -> Trend:
        """By least squares, of at least three points."""
        count = len(jobs)
        assert count >= 3, "a slope and its uncertainty take three points"
        thousands = [number / JOBS_UNIT for number in jobs]
        slope, intercept = statistics.linear_regression(thousands, values)
        middle = statistics.fmean(thousands)
        spread = sum((x - middle) ** 2 for x in thousands)
        rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(thousands, values, strict=True))
        error = (rest / (count - 2) / spread) ** 0.5
        return cls(statistics.fmean(values), slope, 2 * error)

    def growth(self, jobs: int) -> float:
        """In so many jobs, if it goes on like this."""
        return self.slope * jobs / JOBS_UNIT

    def verdict(self, jobs: int, bound: float) -> str:
        """`flat` if it surely grows by less than `bound` in so many jobs, `grows` if surely by
        more, else `unclear`. Shrinking is flat."""
        growth, error = self.growth(jobs), self.uncertainty * jobs / JOBS_UNIT
        if growth + error <= bound:
            return "flat"
        return "grows" if growth - error > bound else "unclear"
