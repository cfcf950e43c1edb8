"""Several models in one store: which one a request means, their bounds, and their estimates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from shared.errors import ModelNotFound, NoWorkerReady, QueueFull
from shared.job.dead_letters import DeadLetters
from shared.job.gateway_store import GatewayStore
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import claimed, job, report

pytestmark = pytest.mark.anyio

Open = Callable[..., Any]


@pytest.fixture
def opened(settings: Settings) -> Open:
    """`async with opened(yolo_model="a.pt")`: a gateway whose settings say so of models."""

    @asynccontextmanager
    async def gateway(**models: str) -> AsyncIterator[GatewayStore]:
        store = GatewayStore(Settings(redis_url=settings.redis_url, **models))
        yield store
        await store.close()

    return gateway


def announce(store: WorkerStore, worker: str, *models: str) -> None:
    store.heartbeat(worker, report(1, models), [])


@pytest.mark.parametrize(
    ("told", "default"),
    [
        ({"yolo_model": "a/coco.pt"}, "coco"),
        ({"yolo_models": "codes=c.pt,coco=y.pt"}, "codes"),
        ({"yolo_models": "codes=c.pt,coco=y.pt", "default_model": "coco"}, "coco"),
        ({"yolo_model": "a/coco.pt", "default_model": "faces"}, "faces"),
    ],
)
async def test_the_default_model_is_what_the_settings_say(
    opened: Open, store: WorkerStore, told: dict[str, str], default: str
) -> None:
    """Whoever is there, so that nobody gets another model because a worker died."""
    async with opened(**told) as gateway:
        assert (await gateway.admit(0, "")).name == default
        announce(store, "w1", "plates")
        assert gateway.model_name("", await gateway.queue()) == default


async def test_without_such_settings_the_only_model_is_the_default(
    opened: Open, store: WorkerStore
) -> None:
    async with opened() as gateway:
        with pytest.raises(NoWorkerReady, match="no YOLO_MODEL"):
            await gateway.admit(0, "")
        announce(store, "w1", "plates")
        assert gateway.model_name("", await gateway.queue()) == "plates"
        announce(store, "w2", "codes")
        with pytest.raises(ModelNotFound, match="There are: codes, plates"):
            gateway.model_name("", await gateway.queue())


async def test_a_name_of_the_settings_is_known_before_its_first_worker(opened: Open) -> None:
    async with opened(yolo_models="codes=c.pt,coco=y.pt") as gateway:
        assert (await gateway.admit(0, "coco")).name == "coco"
        with pytest.raises(ModelNotFound, match="There are: codes, coco"):
            await gateway.admit(0, "plates")


async def test_a_model_without_workers_does_not_shut_the_others_out(
    settings: Settings, store: WorkerStore
) -> None:
    gateway = GatewayStore(settings.model_copy(update={"max_queue_jobs": 64}))
    announce(store, "w1", "a", "b", "c")
    assert [await fill(gateway, model) for model in ("a", "b", "c")] == [48, 12, 3]
    await gateway.close()


async def fill(gateway: GatewayStore, model: str) -> int:
    """How many jobs of a model are accepted until one is refused."""
    accepted = 0
    with suppress(QueueFull):
        while True:
            await gateway.accept(job(model=model))
            accepted += 1
    return accepted


async def test_an_estimate_follows_the_models_own_rate(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    announce(store, "w1", "fast", "slow")
    for model, run_us in (("fast", 20_000), ("slow", 900_000)):
        store.redis.hset(f"yolo:model:{model}", "run_us", run_us)
    etas = {}
    for model in ("fast", "slow"):
        await gateway.accept(job(model=model))
        second, _ = await gateway.accept(job(model=model))
        assert second.position == 2
        etas[model] = second.eta_ms
    assert etas == {"fast": 60, "slow": 2700}, "two jobs at its rate, and its own time"


async def test_a_letter_of_a_model_that_nobody_serves_is_kept(
    settings: Settings, gateway: GatewayStore
) -> None:
    strict = settings.model_copy(update={"max_attempts": 1})
    store = WorkerStore(strict)
    announce(store, "w1", "demo")
    record, _ = await gateway.accept(job())
    attempt = claimed(store, record.task_id)
    assert store.abandon(record.task_id, "timeout", attempt=attempt.number) == "dead"
    letters = DeadLetters(strict, store)
    store.redis.zrem("yolo:models", "demo")
    with pytest.raises(ModelNotFound, match="demo"):
        letters.retry(record.task_id)
    assert letters.image(record.task_id) is not None
    announce(store, "w1", "demo")
    assert letters.retry(record.task_id) is not None
