"""Sends a chaos run's cases with the load of `yolo-queue stress`, until it is told to finish."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.cases import Case
from yolo_queue import AsyncClient, Parameters
from yolo_queue.cli.stress_account import Shot
from yolo_queue.cli.stress_load import Load, Plan

UPLOADS = 8


class Cases:
    """The supply of a load: every case once, then those of the second half again and again."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases, self._again = cases, cases[len(cases) // 2 :]

    def case(self, index: int) -> Case:
        beyond = index - len(self._cases)
        return self._cases[index] if beyond < 0 else self._again[beyond % len(self._again)]

    def image(self, index: int) -> bytes:
        return self.case(index).image


class CaseLoad(Load):
    """`rate` in jobs a second. Goes on beyond the last case until `finish`."""

    def __init__(self, client: AsyncClient, cases: list[Case], rate: float) -> None:
        self._cases = Cases(cases)
        self._finishing = False
        super().__init__(client, self._cases, Plan(len(cases), UPLOADS, rate))

    def case(self, shot: Shot) -> Case:
        return self._cases.case(shot.index)

    def parameters_of(self, shot: Shot) -> Parameters:
        case = self.case(shot)
        return {"tile": case.tile, "conf": case.conf} if case.tile else {}

    def latest_job(self) -> str:
        """The id of the job that was accepted last and has not ended; empty if there is none."""
        running = (shot for shot in reversed(self.shots) if shot.task_id and shot.ended is None)
        return next((shot.task_id for shot in running), "")

    def finish(self) -> None:
        """Send what is left of the cases, and no more."""
        self._finishing = True

    def _turns(self) -> Iterator[Shot]:
        yield from super()._turns()
        while not self._finishing:
            self.shots.append(Shot(len(self.shots)))
            yield self.shots[-1]
