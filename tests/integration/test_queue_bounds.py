"""The queue's bounds, what a refusal says, and fair share between clients, on a real server."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shared.errors import QueueFull
from shared.job.celery_result import success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.keys import LANES
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, MODEL, claimed, job, report

pytestmark = pytest.mark.anyio


async def test_the_queue_is_bounded_in_jobs_and_bytes(settings: Settings) -> None:
    small = settings.model_copy(update={"max_queue_jobs": 3, "max_queue_bytes": 1000})
    gateway, store = GatewayStore(small), WorkerStore(small)
    for _ in range(3):
        record, _ = await gateway.accept(job(image=bytes(100)))
    with pytest.raises(QueueFull, match="3 jobs"):
        await gateway.accept(job())
    with pytest.raises(QueueFull):
        await gateway.admit(10, MODEL)
    assert len(store.redis.keys("yolo:image:*")) == 3, "a refused image is not kept"
    claimed(store, record.task_id)
    await gateway.accept(job(image=bytes(700)))
    claimed(store, store.redis.zrange("yolo:lane:demo.0", 0, 0)[0].decode())
    with pytest.raises(QueueFull):
        await gateway.accept(job(image=bytes(201)))
    await gateway.accept(job(image=bytes(100)))
    await gateway.close()


async def test_retry_after_follows_the_measured_drain_rate(settings: Settings) -> None:
    small = settings.model_copy(update={"max_queue_jobs": 40})
    gateway, store = GatewayStore(small), WorkerStore(small)
    store.heartbeat("w1", report(), [])
    ids = [(await gateway.accept(job()))[0].task_id for _ in range(40)]
    finished_us: list[int] = []
    for task_id in ids[:20]:
        store.complete(claimed(store, task_id), success_meta(task_id, {}))
        finished_us.append(int(store.redis.hget("yolo:stats", "finished_us")))
    intervals = [after - before for before, after in pairwise(finished_us)]
    queue = await gateway.queue()
    assert queue.drain_rate is not None
    assert 1e6 / max(intervals) <= queue.drain_rate <= 1e6 / min(intervals)
    for _ in range(20):
        await gateway.accept(job())

    # At a rate of two jobs a second:
    store.redis.hset(f"yolo:model:{MODEL}", mapping={"drain_us": 500_000, "run_us": 400_000})
    with pytest.raises(QueueFull) as refusal:
        await gateway.accept(job())
    assert refusal.value.retry_after_seconds == 40 / 10 / 2
    found = await gateway.read(ids[39])
    assert found is not None
    assert found[0].position == 20
    assert found[0].eta_ms == 20 * 500 + 400
    await gateway.close()


async def test_one_clients_backlog_does_not_hold_up_another(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    for _ in range(200):
        await gateway.accept(job("heavy"))
    record, _ = await gateway.accept(job("light"))
    assert record.position == 2, "next in turn after one job of the other client"
    assert store.redis.llen(FIRST_LANE) == 200
    assert store.redis.llen("yolo.demo.1") == 1
    several = [(await gateway.accept(job(f"client-{n}")))[0] for n in range(LANES)]
    assert max(one.position or 0 for one in several[: LANES - 2]) <= LANES
