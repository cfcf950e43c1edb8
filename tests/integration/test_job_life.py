"""Every transition of a job, on a real server: the worker's and the gateway's side together."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from shared.errors import IdempotencyConflict, UndecodableImage
from shared.job.celery_result import failure_meta, success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.keys import HEARTBEAT_SECONDS, result_key
from shared.job.record import Attempt, JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, MODEL, MODELS, claimed, events_of, job, report, state_of

pytestmark = pytest.mark.anyio


async def test_a_job_from_accept_to_result(gateway: GatewayStore, store: WorkerStore) -> None:
    record, is_new = await gateway.accept(new := job(image=b"pixels"))
    assert is_new
    assert (record.state, record.position, record.attempts) == (JobState.QUEUED, 1, 0)
    assert store.redis.llen(FIRST_LANE) == 1

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
    assert store.claim("00000000-0000-0000-0000-000000000000", "w1", MODELS) == "unknown"
    record, _ = await gateway.accept(job())
    assert await state_of(gateway, record.task_id) is JobState.QUEUED


async def test_only_one_of_many_gets_the_job(gateway: GatewayStore, settings: Settings) -> None:
    record, _ = await gateway.accept(job())
    outcomes: list[Attempt | str] = []
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        store = WorkerStore(settings)
        barrier.wait()
        outcomes.append(store.claim(record.task_id, f"w{number}", MODELS))

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
    assert store.claim(record.task_id, "w3", MODELS) == "finished"


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
    assert store.redis.llen(FIRST_LANE) == 1
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
    assert store.claim(record.task_id, "w1", MODELS) == "finished"
    store.heartbeat("w1", report(), [])
    assert await events_of(store, other.task_id) == ["queued", "expired"]
    queue = await gateway.queue()
    assert queue.depth == 0
    assert queue.stats["queued_bytes"] == 0
    assert store.redis.keys("yolo:image:*") == []
    await gateway.close()


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


OF_THE_SERVICE = {b"yolo:stats", b"yolo:marks", b"yolo:models", f"yolo:model:{MODEL}".encode()}


async def test_nothing_is_left_when_its_time_is_over(settings: Settings) -> None:
    """Every key of a job has a time to live; no janitor has to come by."""
    brief = settings.model_copy(update={"result_ttl_seconds": 1})
    gateway, store = GatewayStore(brief), WorkerStore(brief)
    for _ in range(5):
        record, _ = await gateway.accept(job())
        store.complete(claimed(store, record.task_id), success_meta(record.task_id, {}))
    store.redis.delete(FIRST_LANE)
    deadline = time.monotonic() + 5
    while (left := set(store.redis.keys("*"))) != OF_THE_SERVICE:
        assert time.monotonic() < deadline, left
    assert settings.lease_seconds / 3 > HEARTBEAT_SECONDS
    await gateway.close()
