"""What waits is counted right, also when nobody works, records are lost, or jobs are cancelled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.errors import QueueFull
from shared.job.gateway_store import GatewayStore
from shared.job.record import JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, MODELS, claimed, job, report, state_of

pytestmark = pytest.mark.anyio


def grow_old(store: WorkerStore, seconds: float) -> None:
    """Move all jobs' times, and what the gateways remember, into the past."""
    ms = int(seconds * 1000)
    for key in store.redis.keys("yolo:job:*"):
        store.redis.hincrby(key, "created_ms", -ms)
        ttl = store.redis.ttl(key)
        if ttl > seconds:
            store.redis.expire(key, int(ttl - seconds))
        elif ttl > 0:
            store.redis.delete(key)
    for key in store.redis.keys("yolo:image:*"):
        if store.redis.ttl(key) <= seconds:
            store.redis.delete(key)
    for name, score in store.redis.zrange("yolo:leases", 0, -1, withscores=True):
        store.redis.zadd("yolo:leases", {name: score - ms})


async def totals(gateway: GatewayStore, store: WorkerStore) -> dict[str, Any]:
    queue = await gateway.queue()
    return {
        "depth": queue.depth,
        "bytes": queue.stats.get("queued_bytes", 0),
        "clients": store.redis.hgetall("yolo:clients"),
        "owed": store.redis.hgetall("yolo:owed"),
        "messages": sum(
            store.redis.llen(key) for key in (FIRST_LANE, "yolo.demo.1", "yolo.demo.2")
        ),
    }


NOTHING = {"depth": 0, "bytes": 0, "clients": {}, "owed": {}, "messages": 0}


async def test_a_full_queue_without_workers_becomes_free_again(settings: Settings) -> None:
    full = settings.model_copy(update={"max_queue_bytes": 1000})
    gateway, store = GatewayStore(full), WorkerStore(full)
    ids = [
        (await gateway.accept(job(image=bytes(100), webhook_url="http://x/")))[0].task_id
        for _ in range(10)
    ]
    with pytest.raises(QueueFull):
        await gateway.accept(job())
    grow_old(store, full.record_ttl_seconds + 60)  # longer than records and images used to live
    while await gateway.sweep():
        pass
    assert await totals(gateway, store) == NOTHING
    assert {await state_of(gateway, task_id) for task_id in ids} == {JobState.EXPIRED}
    assert store.redis.zcard("yolo:webhooks") == 10, "each one's client hears of it"
    assert 0 < store.redis.ttl(f"yolo:job:{ids[0]}") <= full.result_ttl_seconds
    await gateway.accept(job(image=bytes(1000)))
    await gateway.close()


async def test_a_record_that_is_lost_gives_its_place_back(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    records = [(await gateway.accept(job(image=bytes(100))))[0] for _ in range(3)]
    store.redis.delete(f"yolo:job:{records[0].task_id}")  # evicted, or deleted by hand
    store.heartbeat("w1", report(), [])
    queue = await totals(gateway, store)
    assert (queue["depth"], queue["bytes"]) == (2, 200)
    assert queue["clients"] == {b"demo|a|jobs": b"2", b"demo|a|lane": b"demo.0"}


async def test_totals_that_went_wrong_are_counted_again(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    records = [(await gateway.accept(job(owner, image=bytes(100))))[0] for owner in "abb"]
    right = await totals(gateway, store)
    assert await gateway.recount(0) == []
    store.redis.hset("yolo:stats", "queued_bytes", 10**9)
    store.redis.hset(
        "yolo:clients", mapping={"demo|b|jobs": 7, "gone|jobs": 1, "gone|lane": "demo.3"}
    )
    store.redis.hdel("yolo:clients", "demo|a|lane")
    store.redis.hset("yolo:owed", "gone", "100 gone")
    store.redis.hdel("yolo:owed", records[0].task_id)  # as a gateway of an earlier version
    corrected = await gateway.recount(0)
    assert corrected == ["queued_bytes from 1000000000 to 300", "4 entries of clients"]
    assert await totals(gateway, store) == right
    assert await gateway.recount(0) == []
    store.redis.hset("yolo:stats", "dead_bytes", 9)
    assert await gateway.recount(0) == ["dead_bytes from 9 to 0"]
    store.redis.hset("yolo:stats", "queued_bytes", 5)
    assert await gateway.recount(60) == [], "another gateway has counted within the minute"
    await gateway.recount(0)

    store.redis.delete(*(f"yolo:job:{record.task_id}" for record in records))
    assert await gateway.recount(0) != []
    assert {**await totals(gateway, store), "messages": 0} == NOTHING


async def test_a_lost_worker_that_nobody_replaces_does_not_keep_its_job_for_ever(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job(webhook_url="http://x/"))
    claimed(store, record.task_id)
    await gateway.sweep()
    grow_old(store, settings.record_ttl_seconds + 60)
    await gateway.sweep()
    assert await state_of(gateway, record.task_id) is JobState.PROCESSING, "a worker may be back"
    store.redis.hset("yolo:stats", "orphans_from_ms", 0)
    await gateway.sweep()
    assert await state_of(gateway, record.task_id) is JobState.EXPIRED
    assert store.redis.zcard("yolo:leases") == 0
    assert store.redis.zcard("yolo:webhooks") == 1


async def test_after_an_outage_a_running_job_is_not_swept(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    claimed(store, record.task_id)
    await gateway.sweep()
    grow_old(store, settings.record_ttl_seconds)
    store.redis.hset("yolo:stats", "orphans_from_ms", 0)
    store.redis.hset("yolo:stats", "gateway_swept_ms", 0)  # Redis was away all the while
    await gateway.sweep()
    assert await state_of(gateway, record.task_id) is JobState.PROCESSING


async def test_cancelled_jobs_leave_no_message(gateway: GatewayStore, store: WorkerStore) -> None:
    records = [(await gateway.accept(job(traceparent="00-1-2-01")))[0] for _ in range(50)]
    for record in records:
        assert (await gateway.cancel(record))[1]
    assert await totals(gateway, store) == NOTHING


async def test_messages_of_no_use_are_not_delivered(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    """Those that are not removed with their job, since they are of another attempt. Of a job that
    was lost twice, it waits behind the others."""
    records = [(await gateway.accept(job()))[0] for _ in range(6)]
    for record in records[:4]:
        for attempt in (1, 2):
            claimed(store, record.task_id)
            outcome = store.abandon(record.task_id, "worker_lost", attempt=attempt)
            assert outcome == "requeued"
        await gateway.cancel(record)
    foreign = json.dumps({"headers": {"id": "x"}, "origin": "gen1@elsewhere"})
    store.redis.lpush(FIRST_LANE, foreign)
    assert store.redis.llen(FIRST_LANE) > 3
    claimed(store, records[4].task_id)
    claimed(store, records[5].task_id)
    assert store.claim(records[0].task_id, "w1", MODELS) == "finished"
    left = [json.loads(text) for text in store.redis.lrange(FIRST_LANE, 0, -1)]
    assert left == [json.loads(foreign)], "another producer's task is left alone"
