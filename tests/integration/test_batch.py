"""How a batch ends when something comes in between: a real store, and a scripted detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared.errors import InvalidTask, UndecodableImage
from shared.job.gateway_store import GatewayStore
from shared.job.record import Attempt, JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.images import encoded, noise
from tests.support.jobs import MODEL, MODELS, job, state_of
from worker.batch import run_in_batch
from worker.model.detector import Prediction
from worker.model.runtimes import ServedModel
from worker.process.child import PoolProcess
from worker.process.shared_memory import SharedMemory

pytestmark = pytest.mark.anyio

IMAGE = encoded(noise(8, 6), "PNG")


@dataclass
class ScriptedDetector:
    """Answers at once, and notes how many pictures each pass had."""

    on_pass: Callable[[int], None] = lambda size: None
    can_batch: bool = True
    served: ServedModel = field(
        default_factory=lambda: ServedModel(MODEL, Path(), "scripted", Path(), "9f86")
    )
    task: str = "detect"
    passes: list[int] = field(default_factory=list)

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


class WatchedStore(WorkerStore):
    """The real store, and hooks around what a batch does with it."""

    on_ask: Callable[[], None] = staticmethod(lambda: None)
    on_commit: Callable[[str], None] = staticmethod(lambda task_id: None)
    asked = 0

    def claim_more(self, attempt: Attempt, worker: str, wanted: int) -> list[Attempt]:
        self.asked += 1
        self.on_ask()
        return super().claim_more(attempt, worker, wanted)

    def complete(self, attempt: Attempt, celery_meta: bytes) -> bool:
        self.on_commit(attempt.task_id)
        return super().complete(attempt, celery_meta)


class Service:
    """A gateway that accepts jobs, and a pool process that runs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(
            update={"micro_batch_jobs": 4, "micro_batch_wait_ms": 1}
        )
        self.gateway = GatewayStore(self.settings)
        self.store = WatchedStore(self.settings)
        self.detector = ScriptedDetector()
        self.memory = SharedMemory()
        row = self.memory.row(0)
        row.announce_loaded(1)
        detectors: Any = {MODEL: self.detector}
        self.process = PoolProcess(self.settings, detectors, self.store, "w", row, lambda: MODELS)
        self.ids: list[str] = []

    async def accept(self, *images: bytes) -> None:
        for image in images:
            record, _ = await self.gateway.accept(job(image=image))
            self.ids.append(record.task_id)

    def run(self) -> dict[str, Any]:
        """As Celery would, with the first job's message."""
        return run_in_batch(self.process, self.ids[0])

    async def ends(self) -> list[str]:
        """What became of each job: its state, or the reason for which it is queued again."""
        ends = []
        for task_id in self.ids:
            state = await state_of(self.gateway, task_id)
            (_, fields), *_ = self.store.redis.xrevrange(f"yolo:events:{task_id}", count=1)
            ends.append(fields.get(b"reason", state.value.encode()).decode())
        return ends


@pytest.fixture
async def service(settings: Settings) -> Any:
    service = Service(settings)
    yield service
    await service.gateway.close()


async def test_each_is_committed_and_the_first_is_what_celery_hears_of(service: Service) -> None:
    await service.accept(IMAGE, IMAGE, b"rubbish")
    seen: list[list[str]] = []
    service.detector.on_pass = lambda size: seen.append(
        service.memory.batched_with(service.ids[:1])
    )
    assert service.run()["model_version"] == "9f86"
    assert await service.ends() == ["completed", "completed", "failed"]
    assert service.detector.passes == [2]
    assert seen == [service.ids[1:]], "named to the parent while they run"
    assert service.memory.batched_with(service.ids) == []


async def test_a_job_without_others_runs_at_once_and_alone(service: Service) -> None:
    await service.accept(IMAGE)
    service.run()
    assert (service.store.asked, service.detector.passes) == (1, [1])


@pytest.mark.parametrize(("others", "asked"), [(1, 2), (2, 2), (3, 1)])
async def test_only_a_batch_that_is_not_full_asks_again(
    service: Service, others: int, asked: int
) -> None:
    await service.accept(*[IMAGE] * (1 + others))
    service.run()
    assert service.store.asked == asked


async def test_a_later_attempt_runs_alone(service: Service) -> None:
    await service.accept(IMAGE, IMAGE)
    service.store.claim(service.ids[0], "w", MODELS)
    service.store.abandon(service.ids[0], "worker_lost", attempt=1)
    service.run()
    assert (service.store.asked, service.detector.passes) == (0, [1])


async def test_a_detector_that_takes_one_by_one_gets_them_so(service: Service) -> None:
    await service.accept(IMAGE, IMAGE)
    service.detector.can_batch = False
    service.run()
    assert (service.store.asked, service.detector.passes) == (0, [1])


async def test_without_an_answer_there_is_no_batch(service: Service) -> None:
    await service.accept(IMAGE, IMAGE)

    def away() -> None:
        raise redis.ConnectionError

    service.store.on_ask = away  # type: ignore[method-assign]
    service.run()
    assert await service.ends() == ["completed", "queued"]


async def test_time_is_up_for_all_that_have_no_outcome(service: Service) -> None:
    await service.accept(IMAGE, IMAGE, IMAGE)

    def late(size: int) -> None:
        raise SoftTimeLimitExceeded

    service.detector.on_pass = late
    with pytest.raises(Ignore):
        service.run()
    assert await service.ends() == ["timeout"] * 3
    assert service.memory.batched_with(service.ids) == []


@pytest.mark.parametrize(
    ("error", "reason"), [(SoftTimeLimitExceeded(), "timeout"), (RuntimeError(), "internal")]
)
async def test_what_is_committed_stays_when_it_ends_halfway(
    service: Service, error: Exception, reason: str
) -> None:
    await service.accept(IMAGE, IMAGE, IMAGE)

    def at_the_second(task_id: str) -> None:
        if task_id == service.ids[1]:
            raise error

    service.store.on_commit = at_the_second  # type: ignore[method-assign]
    with pytest.raises(Ignore):
        service.run()
    assert await service.ends() == ["completed", reason, reason]


async def test_time_may_run_out_while_they_run_one_by_one(service: Service) -> None:
    await service.accept(IMAGE, IMAGE, IMAGE)

    def second_try(size: int) -> None:
        if size > 1:
            raise RuntimeError("too large together")
        if service.detector.passes == [3, 1, 1]:
            raise SoftTimeLimitExceeded

    service.detector.on_pass = second_try
    with pytest.raises(Ignore):
        service.run()
    assert await service.ends() == ["completed", "timeout", "timeout"]


async def test_a_batch_that_fails_is_done_one_by_one(service: Service) -> None:
    await service.accept(IMAGE, IMAGE, IMAGE)

    def only_alone(size: int) -> None:
        if size > 1:
            raise RuntimeError("too large together")

    service.detector.on_pass = only_alone
    service.run()
    assert service.detector.passes == [3, 1, 1, 1]
    assert await service.ends() == ["completed"] * 3


async def test_wrong_parameters_fail_all_of_them(service: Service) -> None:
    await service.accept(IMAGE, IMAGE)

    def no_such_class(size: int) -> None:
        raise InvalidTask("no class 9")

    service.detector.on_pass = no_such_class
    with pytest.raises(InvalidTask):
        service.run()
    assert await service.ends() == ["failed", "failed"]
    assert service.detector.passes == [2]


async def test_the_first_may_be_the_broken_one(service: Service) -> None:
    await service.accept(b"rubbish", IMAGE)
    with pytest.raises(UndecodableImage):
        service.run()
    assert await service.ends() == ["failed", JobState.COMPLETED]
    assert service.detector.passes == [1]


async def test_a_lost_image_fails_its_job_alone_and_may_be_sent_again(service: Service) -> None:
    await service.accept(IMAGE, IMAGE)
    service.store.redis.delete(service.store.keys.image(service.ids[1]))
    service.run()
    assert await service.ends() == ["completed", "failed"]
    found = await service.gateway.read(service.ids[1])
    assert found is not None
    assert found[0].error is not None
    assert (found[0].error["code"], found[0].error["retryable"]) == ("image_lost", True)


def test_one_attempt_is_too_few_for_a_batch() -> None:
    with pytest.raises(ValueError, match="MAX_ATTEMPTS"):
        Settings(micro_batch_jobs=2, max_attempts=1)
