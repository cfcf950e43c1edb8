"""Redis' clock is set forward or back: what the scripts make of the times that they have recorded.

The clock itself stays here; the recorded times are moved the other way.
topology/test_clock_steps.py sets a real server's clock.
"""

from __future__ import annotations

import pytest

from shared.job.celery_result import success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.keys import HEARTBEAT_SECONDS, lanes_of
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, MODEL, claimed, job, report

pytestmark = pytest.mark.anyio

MINUTE, HOUR = 60, 3600
TIMES = ("swept_ms", "gateway_swept_ms", "grace_until_ms", "orphans_from_ms", "recounted_ms")
TIMES += ("ready_processes_ms", "drain_ms")


def set_clock(store: WorkerStore, seconds: int) -> None:
    """As if the clock were set forward by so much; back if it is negative."""
    ms = seconds * 1000
    for key in ("yolo:leases", "yolo:workers-seen", "yolo:models", "yolo:webhooks"):
        for member in store.redis.zrange(key, 0, -1):
            store.redis.zincrby(key, -ms, member)
    hashes = {
        "yolo:stats": TIMES,
        f"yolo:model:{MODEL}": TIMES,
        "yolo:marks": [f"at:{lane}" for lane in lanes_of(MODEL)],
        **{key.decode(): ("created_ms", "started_ms") for key in store.redis.keys("yolo:job:*")},
    }
    for key, names in hashes.items():
        for name in names:
            if store.redis.hexists(key, name):
                store.redis.hincrby(key, name, -ms)
    for key in ("yolo:stats", f"yolo:model:{MODEL}"):
        if store.redis.hexists(key, "finished_us"):
            store.redis.hincrby(key, "finished_us", -ms * 1000)


def beat(store: WorkerStore, worker: str, *running: str) -> int:
    """A heartbeat; returns how many jobs of lost workers it queued again."""
    return store.heartbeat(worker, report(), running).requeued


def pass_time(store: WorkerStore, seconds: float) -> int:
    """Time goes by, with the heartbeats of w2; returns how many jobs it queued again."""
    requeued = 0
    for _ in range(int(seconds / HEARTBEAT_SECONDS)):
        set_clock(store, int(HEARTBEAT_SECONDS))
        requeued += beat(store, "w2")
    return requeued


@pytest.mark.parametrize("seconds", [HOUR, MINUTE, 5, -1, -5, -MINUTE, -HOUR])
async def test_no_healthy_job_is_taken_away(
    gateway: GatewayStore, store: WorkerStore, seconds: int
) -> None:
    record, _ = await gateway.accept(job())
    beat(store, "w1")
    beat(store, "w2")
    attempt = claimed(store, record.task_id, "w1")
    beat(store, "w1", record.task_id)
    set_clock(store, seconds)
    assert beat(store, "w2") == 0
    await gateway.sweep()
    assert beat(store, "w1", record.task_id) == 0
    set_clock(store, 3)  # a moment later
    assert beat(store, "w2") == 0
    assert store.complete(attempt, success_meta(record.task_id, {}))


@pytest.mark.parametrize("steps", [(-MINUTE,), (-HOUR,), (HOUR, -HOUR), (HOUR, -MINUTE)])
async def test_a_dead_workers_job_is_recovered_after_a_lease(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, steps: tuple[int, ...]
) -> None:
    """Also if the clock was set back: a lease from before must not last as much longer, nor the
    grace that a step forward gave to everyone."""
    record, _ = await gateway.accept(job())
    beat(store, "w1")
    claimed(store, record.task_id, "w1")
    for seconds in steps:
        set_clock(store, seconds)
        assert beat(store, "w2") == 0, "it has a lease yet"
    assert pass_time(store, settings.lease_seconds - 2) == 0
    assert pass_time(store, 4) == 1
    assert "w1" not in (await gateway.queue()).workers


async def test_a_lost_message_is_replaced_although_the_clock_was_set_back(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    await gateway.accept(job())
    store.redis.rpop(FIRST_LANE)
    beat(store, "w1")
    set_clock(store, -HOUR)
    assert store.heartbeat("w1", report(), []).republished == 0
    pass_time(store, settings.lease_seconds + 2)
    assert store.redis.llen(FIRST_LANE) == 1


async def test_workers_that_are_gone_do_not_count_as_ready(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    beat(store, "w1")
    set_clock(store, -MINUTE)
    assert (await gateway.queue()).ready_processes == 0, "until a worker reports by this clock"
    beat(store, "w2")
    assert (await gateway.queue()).ready_processes == 2
    pass_time(store, 10)
    assert list((await gateway.queue()).workers) == ["w2"]


async def test_a_small_step_back_hides_no_worker(gateway: GatewayStore, store: WorkerStore) -> None:
    beat(store, "w1")
    set_clock(store, -5)
    assert (await gateway.queue()).ready_processes == 1


@pytest.mark.parametrize("seconds", [HOUR, MINUTE, -MINUTE, -HOUR])
async def test_estimates_do_not_learn_from_a_step(
    gateway: GatewayStore, store: WorkerStore, seconds: int
) -> None:
    """The mean run time and the drain rate decide `Retry-After` and estimates."""
    beat(store, "w1")
    ids = [(await gateway.accept(job()))[0].task_id for _ in range(6)]
    for task_id in ids[:3]:
        store.complete(claimed(store, task_id), success_meta(task_id, {}))
    attempt = claimed(store, ids[3])
    set_clock(store, seconds)
    beat(store, "w1")
    store.complete(attempt, success_meta(ids[3], {}))
    queue = await gateway.queue()
    assert 0 <= queue.stats["run_us"] < 1e6
    assert 0 < queue.stats["drain_us"] < 1e6
    assert queue.drain_rate is not None
    assert queue.drain_rate > 1


async def test_orphans_end_although_the_clock_was_set_forward_and_back(
    store: WorkerStore, settings: Settings
) -> None:
    """No worker is left: a step forward gives workers a minute, which a step back must not make a
    day."""
    gateway = GatewayStore(settings.model_copy(update={"max_queue_seconds": 2 * MINUTE}))
    record, _ = await gateway.accept(job())
    claimed(store, record.task_id)
    await gateway.sweep()
    for seconds in (24 * HOUR, -24 * HOUR):
        set_clock(store, seconds)
        await gateway.sweep()
    # In short steps, or sweep.lua would take them for an outage.
    for _ in range(4 * MINUTE // 9):
        set_clock(store, 9)
        await gateway.sweep()
    assert not store.redis.exists("yolo:leases")
    found = await gateway.read(record.task_id)
    assert found is not None
    assert found[0].state == "expired"
    await gateway.close()


async def test_totals_are_counted_again_although_the_clock_was_set_back(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    await gateway.recount(60)
    store.redis.hset("yolo:stats", "queued_bytes", 7)
    assert await gateway.recount(60) == []
    set_clock(store, -HOUR)
    assert await gateway.recount(60) != []


async def test_an_idempotency_key_holds(gateway: GatewayStore, store: WorkerStore) -> None:
    new = job(idempotency_key="a:key", fingerprint="f")
    record, is_new = await gateway.accept(new)
    assert is_new
    set_clock(store, -HOUR)
    again, is_new = await gateway.accept(job(idempotency_key="a:key", fingerprint="f"))
    assert (again.task_id, is_new) == (record.task_id, False)


async def test_the_order_of_a_jobs_events_is_kept(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    """Redis itself sees to it that ids of a stream grow; a client that resumes relies on it."""
    record, _ = await gateway.accept(job())
    ahead = f"yolo:events:{record.task_id}"
    last = store.redis.xadd(ahead, {"status": "queued"}, id=f"{(2**42)}-0")
    claimed(store, record.task_id)
    events, _ = await gateway.changes(record.task_id, last.decode())
    assert [fields["status"] for _, fields in events] == ["processing"]
