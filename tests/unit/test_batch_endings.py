"""How a batch ends when something comes in between, with a store and a detector that do as told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared.errors import InvalidTask, UndecodableImage
from shared.job.record import Attempt, JobRecord, JobState
from shared.settings import Settings
from tests.support.images import encoded, noise
from worker import batch as micro_batch
from worker.model.detector import Prediction
from worker.process.counters import Tally
from worker.process.mates import MatesBoard

IMAGE = encoded(noise(8, 6), "PNG")


@dataclass
class Fakes:
    """The store and the detector of a pool process, and what they were asked to do."""

    mates: list[str]
    images: dict[str, bytes] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    asked: int = 0
    on_pass: Callable[[int], None] = lambda size: None
    on_commit: Callable[[str], None] = lambda task_id: None
    on_ask: Callable[[], None] = lambda: None
    can_batch: bool = True
    model_name: str = "fake.pt"
    task: str = "detect"

    def claim(self, task_id: str, worker: str) -> Attempt | str:
        return attempt(task_id)

    def claim_more(self, first: Attempt, worker: str, wanted: int) -> list[Attempt]:
        self.asked += 1
        self.on_ask()
        found, self.mates = self.mates[:wanted], self.mates[wanted:]
        return [attempt(task_id) for task_id in found]

    def image(self, task_id: str) -> bytes | None:
        return self.images.get(task_id, IMAGE)

    def complete(self, held: Attempt, meta: bytes) -> bool:
        self.on_commit(held.task_id)
        self.done.append((held.task_id, "completed"))
        return True

    def fail(self, held: Attempt, meta: bytes, error: Exception) -> bool:
        self.done.append((held.task_id, "failed"))
        return True

    def abandon(self, task_id: str, reason: str, *, attempt: int) -> str:
        assert attempt == 1
        self.done.append((task_id, reason))
        return "requeued"

    def predict(self, image: Any, parameters: Any) -> Prediction:
        self.passes.append(1)
        self.on_pass(1)
        return Prediction([], np.zeros((6, 8, 3), np.uint8), 1.0, 1.0)

    def predict_batch(self, images: Sequence[Any], parameters: Any) -> list[Prediction]:
        if len(images) == 1:
            return [self.predict(images[0], parameters)]
        self.passes.append(len(images))
        self.on_pass(len(images))
        return [Prediction([], None, 1.0, 1.0) for _ in images]


def attempt(task_id: str, number: int = 1) -> Attempt:
    record = JobRecord(task_id, JobState.PROCESSING, "a", 0, number, 10, "image/png", {}, 1)
    return Attempt(task_id, number, record)


BOARD, TALLY = MatesBoard(1), Tally(1)


def run(fakes: Fakes, **settings: Any) -> dict[str, Any]:
    process: Any = SimpleNamespace(
        settings=Settings(micro_batch_jobs=4, micro_batch_wait_ms=1, **settings),
        detector=fakes,
        store=fakes,
        worker="w",
        tally=TALLY.process(0),
        mates=BOARD.row(0),
    )
    return micro_batch.run_with_mates(process, "a")


def test_each_is_committed_and_the_first_is_what_celery_hears_of() -> None:
    fakes = Fakes(["b", "c"], images={"c": b"rubbish"})
    fakes.on_pass = lambda size: seen.append(BOARD.mates_of(["a"], 1))
    seen: list[list[str]] = []
    assert run(fakes)["model"] == "fake.pt"
    assert fakes.done == [("a", "completed"), ("b", "completed"), ("c", "failed")]
    assert fakes.passes == [2]
    assert seen == [["b", "c"]], "named to the parent while they run"
    assert BOARD.mates_of(["a"], 1) == []


def test_a_job_without_mates_runs_at_once_and_alone() -> None:
    fakes = Fakes([])
    run(fakes)
    assert (fakes.asked, fakes.passes) == (1, [1])


@pytest.mark.parametrize(("mates", "asked"), [(1, 2), (2, 2), (3, 1)])
def test_only_a_batch_that_is_not_full_asks_again(mates: int, asked: int) -> None:
    fakes = Fakes(["b", "c", "d"][:mates])
    run(fakes)
    assert fakes.asked == asked


def test_a_later_attempt_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = Fakes(["b"])
    monkeypatch.setattr(fakes, "claim", lambda *_: attempt("a", 2), raising=False)
    run(fakes)
    assert (fakes.asked, fakes.passes) == (0, [1])


def test_a_detector_that_takes_one_by_one_gets_them_so() -> None:
    fakes = Fakes(["b"], can_batch=False)
    run(fakes)
    assert (fakes.asked, fakes.passes) == (0, [1])


def test_without_an_answer_there_are_no_mates() -> None:
    fakes = Fakes(["b"])

    def away() -> None:
        raise redis.ConnectionError

    fakes.on_ask = away
    run(fakes)
    assert fakes.done == [("a", "completed")]


def test_time_is_up_for_all_that_have_no_outcome() -> None:
    fakes = Fakes(["b", "c"])

    def late(size: int) -> None:
        raise SoftTimeLimitExceeded

    fakes.on_pass = late
    with pytest.raises(Ignore):
        run(fakes)
    assert fakes.done == [("a", "timeout"), ("b", "timeout"), ("c", "timeout")]
    assert BOARD.mates_of(["a"], 1) == []


@pytest.mark.parametrize(
    ("error", "reason"), [(SoftTimeLimitExceeded(), "timeout"), (RuntimeError(), "internal")]
)
def test_what_is_committed_stays_when_it_ends_halfway(error: Exception, reason: str) -> None:
    fakes = Fakes(["b", "c"])

    def at_the_second(task_id: str) -> None:
        if task_id == "b":
            raise error

    fakes.on_commit = at_the_second
    with pytest.raises(Ignore):
        run(fakes)
    assert fakes.done == [("a", "completed"), ("b", reason), ("c", reason)]


def test_time_may_run_out_while_they_run_one_by_one() -> None:
    fakes = Fakes(["b", "c"])

    def second_try(size: int) -> None:
        if size > 1:
            raise RuntimeError("too large together")
        if fakes.passes == [3, 1, 1]:
            raise SoftTimeLimitExceeded

    fakes.on_pass = second_try
    with pytest.raises(Ignore):
        run(fakes)
    assert fakes.done == [("a", "completed"), ("b", "timeout"), ("c", "timeout")]


def test_a_batch_that_fails_is_done_one_by_one() -> None:
    fakes = Fakes(["b", "c"])

    def only_alone(size: int) -> None:
        if size > 1:
            raise RuntimeError("too large together")

    fakes.on_pass = only_alone
    run(fakes)
    assert fakes.passes == [3, 1, 1, 1]
    assert [end for _, end in fakes.done] == ["completed"] * 3


def test_wrong_parameters_fail_all_of_them() -> None:
    fakes = Fakes(["b"])

    def no_such_class(size: int) -> None:
        raise InvalidTask("no class 9")

    fakes.on_pass = no_such_class
    with pytest.raises(InvalidTask):
        run(fakes)
    assert fakes.done == [("a", "failed"), ("b", "failed")]
    assert fakes.passes == [2]


def test_the_first_may_be_the_broken_one() -> None:
    fakes = Fakes(["b"], images={"a": b"rubbish"})
    with pytest.raises(UndecodableImage):
        run(fakes)
    assert fakes.done == [("a", "failed"), ("b", "completed")]
    assert fakes.passes == [1]


def test_one_attempt_is_too_few_for_a_batch() -> None:
    with pytest.raises(ValueError, match="MAX_ATTEMPTS"):
        Settings(micro_batch_jobs=2, max_attempts=1)
