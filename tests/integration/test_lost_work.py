"""Leases, lost workers and vanished messages: what heartbeats recover, on a real server."""

from __future__ import annotations

import json
import time

import pytest

from shared.job.celery_result import success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, Clock, claimed, job, report

pytestmark = pytest.mark.anyio


async def test_a_lost_workers_job_goes_to_another(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", report(), [])
    claimed(store, record.task_id, "w1")
    store.redis.delete(FIRST_LANE)  # its message went with the worker
    assert store.heartbeat("w2", report(), []).requeued == 0, "the lease is fresh"
    Clock(store).pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w2", report(), []).requeued == 1
    assert store.redis.llen(FIRST_LANE) == 1
    assert claimed(store, record.task_id, "w2").number == 2


async def test_a_healthy_long_job_keeps_its_lease(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", report(), [])
    attempt = claimed(store, record.task_id, "w1")
    for _ in range(5):
        Clock(store).pass_(settings.lease_seconds - 1)
        store.heartbeat("w1", report(), [record.task_id])
        recovered = store.heartbeat("w2", report(), [])
        assert (recovered.requeued, recovered.republished) == (0, 0)
    assert store.complete(attempt, success_meta(record.task_id, {}))


async def test_only_the_holder_can_renew(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", report(), [])
    claimed(store, record.task_id, "w1")
    Clock(store).pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w2", report(), [record.task_id]).requeued == 1


async def test_nobody_loses_a_lease_because_redis_was_away(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w1", report(), [])
    attempt = claimed(store, record.task_id, "w1")
    # Redis away for longer than a lease: nobody could renew, nobody could sweep.
    Clock(store).pass_(settings.lease_seconds * 3)
    store.redis.hincrby("yolo:stats", "swept_ms", -int(settings.lease_seconds * 3000))
    assert store.heartbeat("w2", report(), []).requeued == 0
    store.heartbeat("w1", report(), [record.task_id])
    assert store.heartbeat("w2", report(), []).requeued == 0
    assert store.complete(attempt, success_meta(record.task_id, {}))


async def test_a_job_whose_message_vanished_gets_a_new_one(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    clock = Clock(store)
    lost, _ = await gateway.accept(job())
    assert store.redis.rpop(FIRST_LANE) is not None  # taken by a worker that dies at once
    store.heartbeat("w1", report(), [])
    clock.pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w1", report(), []).republished == 1, "empty list, queued job"
    assert store.redis.llen(FIRST_LANE) == 1

    # The same behind a backlog: a later job of the lane has been taken.
    later = [(await gateway.accept(job()))[0] for _ in range(3)]
    store.redis.rpop(FIRST_LANE)
    store.redis.rpop(FIRST_LANE)
    claimed(store, later[0].task_id)
    for _ in range(3):
        clock.pass_(settings.lease_seconds + 1)
        store.heartbeat("w1", report(), [later[0].task_id])
    head = json.loads(store.redis.lrange(FIRST_LANE, -1, -1)[0])
    assert head["headers"]["id"] == lost.task_id, "next in line again"
    assert store.redis.llen(FIRST_LANE) >= 3


async def test_a_waiting_backlog_is_not_taken_for_vanished(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    clock = Clock(store)
    ids = [(await gateway.accept(job()))[0].task_id for _ in range(20)]
    for task_id in ids[:5]:
        store.redis.rpop(FIRST_LANE)
        attempt = claimed(store, task_id)
        store.complete(attempt, success_meta(task_id, {}))
        clock.pass_(settings.lease_seconds + 1)
        assert store.heartbeat("w1", report(), []).republished == 0
    assert store.redis.llen(FIRST_LANE) == 15


async def test_ready_processes_are_forgotten_with_their_worker(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    store.heartbeat("w1", report(2), [])
    store.heartbeat("w2", report(3), [])
    assert (await gateway.queue()).ready_processes == 5
    store.redis.zadd("yolo:workers-seen", {"w1": 0})
    store.heartbeat("w2", report(3), [])
    queue = await gateway.queue()
    assert queue.ready_processes == 3
    assert list(queue.workers) == ["w2"]
    store.heartbeat("w3", report(), [])
    store.leave("w2")
    assert (await gateway.queue()).ready_processes == 1, "one that leaves is off at once"
    # A worker that fell silent, with no other one left to notice.
    store.redis.hset("yolo:stats", "ready_processes_ms", int(time.time() * 1000 - 11_000))
    assert (await gateway.queue()).ready_processes == 0
