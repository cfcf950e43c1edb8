"""Every transition of a job, on a real server: the worker's and the gateway's side together."""

from __future__ import annotations

import json
import threading
import time

import anyio
import pytest
import redis

from shared.errors import IdempotencyConflict, QueueFull, UndecodableImage
from shared.job.celery_result import failure_meta, success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.keys import HEARTBEAT_SECONDS, LANES, result_key
from shared.job.record import Attempt, JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import claimed, job, state_of

pytestmark = pytest.mark.anyio


async def events_of(store: WorkerStore, task_id: str) -> list[str]:
    return [
        fields[b"status"].decode() for _, fields in store.redis.xrange(f"yolo:events:{task_id}")
    ]


async def test_a_job_from_accept_to_result(gateway: GatewayStore, store: WorkerStore) -> None:
    record, is_new = await gateway.accept(new := job(image=b"pixels"))
    assert is_new
    assert (record.state, record.position, record.attempts) == (JobState.QUEUED, 1, 0)
    assert store.redis.llen("yolo") == 1

    attempt = claimed(store, new.task_id)
    assert attempt.number == 1
    assert store.image(new.task_id) == b"pixels"
    assert await state_of(gateway, new.task_id) is JobState.PROCESSING

    assert store.complete(attempt, success_meta(new.task_id, {"detections": []}))
    found = await gateway.read(new.task_id)
    assert found is not None
    assert found[0].state is JobState.COMPLETED
    assert found[1] == b'{"detections": []}'
    assert store.image(new.task_id) is None, "the upload is not kept once it is done"
    assert await events_of(store, new.task_id) == ["queued", "processing", "completed"]


async def test_unknown_is_not_queued_and_queued_is_not_unknown(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    assert await gateway.read("00000000-0000-0000-0000-000000000000") is None
    assert store.claim("00000000-0000-0000-0000-000000000000", "w1") == "unknown"
    record, _ = await gateway.accept(job())
    assert await state_of(gateway, record.task_id) is JobState.QUEUED


async def test_only_one_of_many_gets_the_job(gateway: GatewayStore, settings: Settings) -> None:
    record, _ = await gateway.accept(job())
    outcomes: list[Attempt | str] = []
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        store = WorkerStore(settings)
        barrier.wait()
        outcomes.append(store.claim(record.task_id, f"w{number}"))

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Attempt) for outcome in outcomes) == 1
    assert outcomes.count("running") == 7


async def test_a_late_finisher_commits_nothing(gateway: GatewayStore, store: WorkerStore) -> None:
    record, _ = await gateway.accept(job())
    first = claimed(store, record.task_id, "w1")
    assert store.abandon(record.task_id, "worker_lost", attempt=1) == "requeued"
    assert not store.complete(first, success_meta(record.task_id, {"by": 1})), "it is queued again"
    second = claimed(store, record.task_id, "w2")
    assert second.number == 2
    assert not store.complete(first, success_meta(record.task_id, {"by": 1}))
    assert not store.fail(first, b"{}", UndecodableImage("no"))
    assert store.complete(second, success_meta(record.task_id, {"by": 2}))
    assert not store.complete(second, success_meta(record.task_id, {"by": 3})), "once is enough"
    found = await gateway.read(record.task_id)
    assert found is not None
    assert found[1] == b'{"by": 2}'
    assert (await events_of(store, record.task_id)).count("completed") == 1
    assert store.claim(record.task_id, "w3") == "finished"


async def test_a_result_that_cannot_be_stored_is_not_committed(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    """The result is set right before its commit. Redis may refuse the one and take the other."""
    record, _ = await gateway.accept(job())
    attempt = claimed(store, record.task_id)
    meta = success_meta(record.task_id, {"by": 1}, bytes(1 << 20))
    store.redis.config_set("maxmemory", store.redis.info("memory")["used_memory"] + (256 << 10))
    try:
        with pytest.raises(redis.OutOfMemoryError):
            store.complete(attempt, meta)
        assert await state_of(gateway, record.task_id) is JobState.PROCESSING
    finally:
        store.redis.config_set("maxmemory", 0)
    assert store.complete(attempt, meta), "and once there is room, it is"
    assert not store.complete(attempt, meta)
    assert store.redis.keys("yolo:staged:*") == [], "neither attempt leaves anything behind"


async def test_scripts_that_redis_has_forgotten(gateway: GatewayStore, store: WorkerStore) -> None:
    """As after a restart, in the middle of the commands that travel with a script."""
    store.redis.script_flush()
    record, _ = await gateway.accept(job(image=b"pixels"))
    store.redis.script_flush()
    attempt = claimed(store, record.task_id)
    assert attempt.image == b"pixels"
    store.redis.script_flush()
    assert store.complete(attempt, success_meta(record.task_id, {"by": 1}))
    store.redis.script_flush()
    found = await gateway.read(record.task_id)
    assert found is not None
    assert found[1] == b'{"by": 1}'


async def test_accepting_again_counts_once(gateway: GatewayStore, store: WorkerStore) -> None:
    """A connection that breaks before the answer has redis-py send it all again."""
    new = job(image=b"pixels", idempotency_key="a:k", fingerprint="f1")
    for _ in range(2):
        record, is_new = await gateway.accept(new)
        assert (record.task_id, is_new) == (new.task_id, True)
    queue = await gateway.queue()
    assert (queue.depth, queue.stats["accepted"], queue.stats["queued_bytes"]) == (1, 1, 6)
    assert store.redis.llen("yolo") == 1
    assert store.image(new.task_id) == b"pixels"


async def test_a_committed_failure_is_what_celery_sees_too(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    record, _ = await gateway.accept(job())
    error = UndecodableImage("cannot be decoded")
    attempt = claimed(store, record.task_id)
    assert store.fail(attempt, failure_meta(record.task_id, error), error)
    found = await gateway.read(record.task_id)
    assert found is not None
    assert found[0].state is JobState.FAILED
    assert found[0].error == {
        "code": "image_undecodable",
        "message": "cannot be decoded",
        "retryable": False,
    }
    from worker.app import create_app

    app = create_app(Settings(redis_url=store._settings.redis_url))
    outcome = app.AsyncResult(record.task_id)
    assert outcome.state == "FAILURE"
    assert isinstance(outcome.result, UndecodableImage)
    app.close()


async def test_a_job_that_waits_too_long_expires(settings: Settings) -> None:
    hasty = settings.model_copy(update={"max_queue_seconds": 1})
    gateway, store = GatewayStore(hasty), WorkerStore(hasty)
    record, _ = await gateway.accept(job())
    other, _ = await gateway.accept(job())
    deadline = time.monotonic() + 5
    while await state_of(gateway, record.task_id) is JobState.QUEUED:
        assert time.monotonic() < deadline
    assert await state_of(gateway, record.task_id) is JobState.EXPIRED
    assert store.claim(record.task_id, "w1") == "finished"
    store.heartbeat("w1", {"ready": 1}, [])
    assert await events_of(store, other.task_id) == ["queued", "expired"]
    queue = await gateway.queue()
    assert queue.depth == 0
    assert queue.stats["queued_bytes"] == 0
    assert store.redis.keys("yolo:image:*") == []
    await gateway.close()


async def test_the_queue_is_bounded_in_jobs_and_bytes(settings: Settings) -> None:
    small = settings.model_copy(update={"max_queue_jobs": 3, "max_queue_bytes": 1000})
    gateway, store = GatewayStore(small), WorkerStore(small)
    for _ in range(3):
        record, _ = await gateway.accept(job(image=bytes(100)))
    with pytest.raises(QueueFull, match="3 jobs"):
        await gateway.accept(job())
    with pytest.raises(QueueFull):
        await gateway.admit(10)
    assert len(store.redis.keys("yolo:image:*")) == 3, "a refused image is not kept"
    claimed(store, record.task_id)
    await gateway.accept(job(image=bytes(700)))
    claimed(store, store.redis.zrange("yolo:lane:0", 0, 0)[0].decode())
    with pytest.raises(QueueFull):
        await gateway.accept(job(image=bytes(201)))
    await gateway.accept(job(image=bytes(100)))
    await gateway.close()


async def test_retry_after_follows_the_measured_drain_rate(settings: Settings) -> None:
    small = settings.model_copy(update={"max_queue_jobs": 40})
    gateway, store = GatewayStore(small), WorkerStore(small)
    store.heartbeat("w1", {"ready": 1}, [])
    ids = [(await gateway.accept(job()))[0].task_id for _ in range(40)]
    for task_id in ids[:20]:
        attempt = claimed(store, task_id)
        await anyio.sleep(0.02)  # the work
        store.complete(attempt, success_meta(task_id, {}))
    queue = await gateway.queue()
    assert queue.drain_rate is not None
    assert 15 < queue.drain_rate < 50
    for _ in range(20):
        await gateway.accept(job())
    with pytest.raises(QueueFull) as refusal:
        await gateway.accept(job())
    expected = max(1.0, 40 / 10 / queue.drain_rate)
    assert refusal.value.retry_after_seconds == pytest.approx(expected, rel=0.2)
    record, _ = (await gateway.read(ids[39])) or (None, None)
    assert record is not None
    assert record.eta_ms is not None
    assert record.position == 20
    assert record.eta_ms == pytest.approx(1000 * 21 / queue.drain_rate, rel=0.3)
    await gateway.close()


async def test_one_clients_backlog_does_not_hold_up_another(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    for _ in range(200):
        await gateway.accept(job("heavy"))
    record, _ = await gateway.accept(job("light"))
    assert record.position == 2, "next in turn after one job of the other client"
    assert store.redis.llen("yolo") == 200
    assert store.redis.llen("yolo.1") == 1
    several = [(await gateway.accept(job(f"client-{n}")))[0] for n in range(LANES)]
    assert max(one.position or 0 for one in several[: LANES - 2]) <= LANES


async def test_idempotency(gateway: GatewayStore) -> None:
    first, new = await gateway.accept(job(idempotency_key="a:k", fingerprint="f1"))
    again, new_again = await gateway.accept(job(idempotency_key="a:k", fingerprint="f1"))
    assert (new, new_again) == (True, False)
    assert again.task_id == first.task_id
    with pytest.raises(IdempotencyConflict):
        await gateway.accept(job(idempotency_key="a:k", fingerprint="f2"))
    other, _ = await gateway.accept(job(idempotency_key="b:k", fingerprint="f2"))
    assert other.task_id != first.task_id
    assert (await gateway.queue()).depth == 2


class Clock:
    """Moves the recorded times of Redis' side back, instead of waiting."""

    def __init__(self, store: WorkerStore) -> None:
        self._redis = store.redis

    def pass_(self, seconds: float) -> None:
        ms = int(seconds * 1000)
        for member, score in self._redis.zrange("yolo:leases", 0, -1, withscores=True):
            self._redis.zadd("yolo:leases", {member: score - ms})
        for key, names in (
            ("yolo:stats", ("grace_until_ms",)),
            ("yolo:marks", [f"at:{lane}" for lane in range(LANES)]),
        ):
            for name in names:
                if self._redis.hexists(key, name):
                    self._redis.hincrby(key, name, -ms)


async def test_a_lost_workers_job_goes_to_another(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", {"ready": 1}, [])
    claimed(store, record.task_id, "w1")
    store.redis.delete("yolo")  # its message went with the worker
    assert store.heartbeat("w2", {"ready": 1}, []).requeued == 0, "the lease is fresh"
    Clock(store).pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w2", {"ready": 1}, []).requeued == 1
    assert store.redis.llen("yolo") == 1
    assert claimed(store, record.task_id, "w2").number == 2


async def test_a_healthy_long_job_keeps_its_lease(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", {"ready": 1}, [])
    attempt = claimed(store, record.task_id, "w1")
    for _ in range(5):
        Clock(store).pass_(settings.lease_seconds - 1)
        store.heartbeat("w1", {"ready": 1}, [record.task_id])
        recovered = store.heartbeat("w2", {"ready": 1}, [])
        assert (recovered.requeued, recovered.republished) == (0, 0)
    assert store.complete(attempt, success_meta(record.task_id, {}))


async def test_only_the_holder_can_renew(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w2", {"ready": 1}, [])
    claimed(store, record.task_id, "w1")
    Clock(store).pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w2", {"ready": 1}, [record.task_id]).requeued == 1


async def test_nobody_loses_a_lease_because_redis_was_away(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    store.heartbeat("w1", {"ready": 1}, [])
    attempt = claimed(store, record.task_id, "w1")
    # Redis away for longer than a lease: nobody could renew, nobody could sweep.
    Clock(store).pass_(settings.lease_seconds * 3)
    store.redis.hincrby("yolo:stats", "swept_ms", -int(settings.lease_seconds * 3000))
    assert store.heartbeat("w2", {"ready": 1}, []).requeued == 0
    store.heartbeat("w1", {"ready": 1}, [record.task_id])
    assert store.heartbeat("w2", {"ready": 1}, []).requeued == 0
    assert store.complete(attempt, success_meta(record.task_id, {}))


async def test_a_job_whose_message_vanished_gets_a_new_one(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    clock = Clock(store)
    lost, _ = await gateway.accept(job())
    assert store.redis.rpop("yolo") is not None  # taken by a worker that dies at once
    store.heartbeat("w1", {"ready": 1}, [])
    clock.pass_(settings.lease_seconds + 1)
    assert store.heartbeat("w1", {"ready": 1}, []).republished == 1, "empty list, queued job"
    assert store.redis.llen("yolo") == 1

    # The same behind a backlog: a later job of the lane has been taken.
    later = [(await gateway.accept(job()))[0] for _ in range(3)]
    store.redis.rpop("yolo")
    store.redis.rpop("yolo")
    claimed(store, later[0].task_id)
    for _ in range(3):
        clock.pass_(settings.lease_seconds + 1)
        store.heartbeat("w1", {"ready": 1}, [later[0].task_id])
    head = json.loads(store.redis.lrange("yolo", -1, -1)[0])
    assert head["headers"]["id"] == lost.task_id, "next in line again"
    assert store.redis.llen("yolo") >= 3


async def test_a_waiting_backlog_is_not_taken_for_vanished(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    clock = Clock(store)
    ids = [(await gateway.accept(job()))[0].task_id for _ in range(20)]
    for task_id in ids[:5]:
        store.redis.rpop("yolo")
        attempt = claimed(store, task_id)
        store.complete(attempt, success_meta(task_id, {}))
        clock.pass_(settings.lease_seconds + 1)
        assert store.heartbeat("w1", {"ready": 1}, []).republished == 0
    assert store.redis.llen("yolo") == 15


async def test_ready_processes_are_forgotten_with_their_worker(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    store.heartbeat("w1", {"ready": 2}, [])
    store.heartbeat("w2", {"ready": 3}, [])
    assert (await gateway.queue()).ready_processes == 5
    store.redis.zadd("yolo:workers-seen", {"w1": 0})
    store.heartbeat("w2", {"ready": 3}, [])
    queue = await gateway.queue()
    assert queue.ready_processes == 3
    assert list(queue.workers) == ["w2"]
    store.heartbeat("w3", {"ready": 1}, [])
    store.leave("w2")
    assert (await gateway.queue()).ready_processes == 1, "one that leaves is off at once"
    # A worker that fell silent, with no other one left to notice.
    store.redis.hset("yolo:stats", "ready_processes_ms", int(time.time() * 1000 - 11_000))
    assert (await gateway.queue()).ready_processes == 0


async def test_result_and_record_live_equally_long(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job())
    key = f"yolo:job:{record.task_id}"
    assert store.redis.ttl(key) == -1, "a queued job stays until it ends"
    attempt = claimed(store, record.task_id)
    assert store.redis.ttl(key) == -1, "and one that runs"
    store.complete(attempt, success_meta(record.task_id, {}))
    for key in (f"yolo:job:{record.task_id}", result_key(record.task_id)):
        assert (
            settings.result_ttl_seconds - 2 <= store.redis.ttl(key) <= settings.result_ttl_seconds
        )


async def test_nothing_is_left_when_its_time_is_over(settings: Settings) -> None:
    """Every key of a job has a time to live; no janitor has to come by."""
    brief = settings.model_copy(update={"result_ttl_seconds": 1})
    gateway, store = GatewayStore(brief), WorkerStore(brief)
    for _ in range(5):
        record, _ = await gateway.accept(job())
        store.complete(claimed(store, record.task_id), success_meta(record.task_id, {}))
    store.redis.delete("yolo")
    deadline = time.monotonic() + 5
    while (left := set(store.redis.keys("*"))) != {b"yolo:stats", b"yolo:marks"}:
        assert time.monotonic() < deadline, left
    assert settings.lease_seconds / 3 > HEARTBEAT_SECONDS
    await gateway.close()
