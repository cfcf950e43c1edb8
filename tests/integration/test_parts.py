"""The life of a job that is done in parts, as gateways and workers see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.errors import InvalidTask, QueueFull
from shared.job.celery_result import failure_meta, success_meta
from shared.job.dead_letters import DeadLetters
from shared.job.gateway_store import GatewayStore
from shared.job.keys import part_of
from shared.job.record import Attempt, JobState, NewJob
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from shared.tiling import PART_PASSES
from tests.support.jobs import FIRST_LANE, MODEL, Clock, claimed, events_of, job, report, state_of

pytestmark = pytest.mark.anyio

PARTS = 3


async def accepted(gateway: GatewayStore, owner: str = "a", **more: Any) -> str:
    record, _ = await gateway.accept(job(owner, parts=PARTS, **more))
    return record.task_id


def part(store: WorkerStore, task_id: str, number: int, worker: str = "w1") -> Attempt:
    return claimed(store, part_of(task_id, number), worker)


def commit(store: WorkerStore, attempt: Attempt, task_id: str) -> bool:
    return store.complete(attempt, success_meta(task_id, {"detections": []}))


def nothing_is_left(store: WorkerStore, task_id: str) -> bool:
    """Of its parts."""
    keys = [key.decode() for key in store.redis.keys(f"yolo:*{task_id}#*")]
    waiting = store.redis.zrange(f"yolo:lane:{MODEL}.0", 0, -1)
    heavy = store.redis.zrange(f"yolo:heavy:{MODEL}.0", 0, -1)
    running = store.redis.zrange("yolo:leases", 0, -1)
    owed = store.redis.hkeys("yolo:owed")
    return not [*keys, *waiting, *heavy, *running, *owed]


async def test_parts_are_delivered_and_the_last_one_commits(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    task_id = await accepted(gateway)
    assert await state_of(gateway, task_id) is JobState.QUEUED
    messages = [json.loads(text) for text in store.redis.lrange(FIRST_LANE, 0, -1)]
    assert [message["headers"]["id"] for message in messages[::-1]] == [
        part_of(task_id, number) for number in range(PARTS)
    ]

    second, first = part(store, task_id, 1), part(store, task_id, 0, "w2")
    assert await state_of(gateway, task_id) is JobState.PROCESSING
    assert (first.image, first.record.parts) == (b"image", PARTS)
    delivery = store.deliver(second, b"two")
    assert (delivery.status, delivery.more_wait) == ("delivered", True)
    assert store.deliver(second, b"two").status == "stale", "once"
    last = part(store, task_id, 2)
    delivery = store.deliver(first, b"one")
    assert (delivery.status, delivery.more_wait) == ("delivered", False)
    # The job waited for 5 s and has run for 2 s.
    key = f"yolo:job:{task_id}"
    store.redis.hincrby(key, "created_ms", -7000)
    store.redis.hincrby(key, "started_ms", -2000)
    delivery = store.deliver(last, b"three")
    assert delivery.status == "last"
    assert 5000 <= delivery.queue_ms < 5000 + delivery.run_ms
    assert delivery.run_ms >= 2000
    assert delivery.size_bytes == len(b"image")
    assert store.deliver(last, b"three").status == "last", "its answer may be lost"
    assert store.found(last) == {0: b"one", 1: b"two"}
    assert await state_of(gateway, task_id) is JobState.PROCESSING

    assert commit(store, last, task_id)
    found = await gateway.read(task_id)
    assert found is not None
    assert found[0].state is JobState.COMPLETED
    assert found[1] is not None
    assert json.loads(bytes(found[1])) == {"detections": []}
    assert not commit(store, last, task_id), "once"
    assert await events_of(store, task_id) == ["queued", "processing", "completed"]
    assert nothing_is_left(store, task_id)
    assert store.image(task_id) is None
    assert await gateway.recount(0) == []


async def test_clients_do_not_see_parts(gateway: GatewayStore, store: WorkerStore) -> None:
    task_id = await accepted(gateway)
    assert await gateway.read(part_of(task_id, 0)) is None
    assert await gateway.changes(part_of(task_id, 0), "") == ([], None)
    part(store, task_id, 0)
    assert await gateway.read(part_of(task_id, 0)) is None


async def test_a_lost_part_costs_itself_alone(gateway: GatewayStore, store: WorkerStore) -> None:
    task_id = await accepted(gateway)
    lost, healthy = part(store, task_id, 0), part(store, task_id, 1, "w2")
    store.heartbeat("w2", report(), [])
    Clock(store).pass_(60)
    recovered = store.heartbeat("w2", report(), [healthy.task_id])
    assert recovered.requeued == 1
    assert store.deliver(healthy, b"two").status == "delivered"
    assert store.deliver(lost, b"late").status == "stale"
    again = part(store, task_id, 0, "w2")
    assert again.number == 2
    found = await gateway.read(task_id)
    assert found is not None
    assert found[0].attempts == 1, "the job has begun once"
    assert store.deliver(again, b"one").status == "delivered"
    last = part(store, task_id, 2)
    assert store.deliver(last, b"three").status == "last"
    assert commit(store, last, task_id)
    assert await events_of(store, task_id) == ["queued", "processing", "completed"]


async def test_a_worker_that_dies_while_it_merges_loses_nothing(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    task_id = await accepted(gateway)
    for number in range(PARTS - 1):
        store.deliver(part(store, task_id, number), b"%d" % number)
    last = part(store, task_id, PARTS - 1)
    assert store.deliver(last, b"x").status == "last"
    assert store.abandon(last.task_id, "worker_lost", worker="w1") == "requeued"
    again = part(store, task_id, PARTS - 1, "w2")
    assert store.deliver(again, b"x").status == "last"
    assert store.found(again) == {0: b"0", 1: b"1"}
    assert not commit(store, last, task_id)
    assert commit(store, again, task_id)


async def test_a_part_that_fails_ends_the_job(gateway: GatewayStore, store: WorkerStore) -> None:
    task_id = await accepted(gateway)
    first, second = part(store, task_id, 0), part(store, task_id, 1, "w2")
    error = InvalidTask("no")
    assert store.fail(first, failure_meta(task_id, error), error)
    found = await gateway.read(task_id)
    assert found is not None
    assert (found[0].state, found[0].error) == (JobState.FAILED, error.as_dict())
    assert store.deliver(second, b"late").status == "stale"
    assert store.claim(part_of(task_id, 2), "w1", [MODEL]) == "unknown"
    assert store.redis.llen(FIRST_LANE) == 0, "its messages went with it"
    assert nothing_is_left(store, task_id)
    assert await gateway.recount(0) == []


async def test_the_last_attempt_of_a_part_makes_a_dead_letter_of_the_job(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    store.heartbeat("w1", report(), [])
    task_id = await accepted(gateway)
    for _ in range(settings.max_attempts):
        attempt = part(store, task_id, 1)
        outcome = store.abandon(attempt.task_id, "worker_lost", attempt=attempt.number)
    assert outcome == "dead"
    assert await state_of(gateway, task_id) is JobState.FAILED
    letters = DeadLetters(settings, store)
    (letter,) = letters.list()
    assert (letter.task_id, letter.size_bytes) == (task_id, len(b"image"))
    assert len(letter.history) == settings.max_attempts
    assert letters.image(task_id) == b"image"
    assert nothing_is_left(store, task_id)
    again = letters.retry(task_id)
    assert again
    assert part(store, again, 0).record.parts == PARTS, "cut again"


async def test_cancelling_takes_the_parts_away(gateway: GatewayStore, store: WorkerStore) -> None:
    task_id = await accepted(gateway)
    running = part(store, task_id, 0)
    found = await gateway.read(task_id)
    assert found is not None
    record, did_it = await gateway.cancel(found[0])
    assert (record.state, did_it) == (JobState.CANCELLED, True)
    assert store.deliver(running, b"late").status == "stale"
    assert nothing_is_left(store, task_id)
    assert store.claim(part_of(task_id, 1), "w1", [MODEL]) == "unknown"
    assert store.redis.llen(FIRST_LANE) == 0


async def test_a_job_expires_if_a_part_waits_too_long(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    task_id = await accepted(gateway)
    running = part(store, task_id, 0)
    ms = (settings.max_queue_seconds + 1) * 1000
    for number in (1, 2):
        store.redis.hincrby(f"yolo:job:{part_of(task_id, number)}", "created_ms", -ms)
    await gateway.sweep()
    assert await state_of(gateway, task_id) is JobState.EXPIRED
    assert store.deliver(running, b"late").status == "stale"
    assert nothing_is_left(store, task_id)


async def test_parts_whose_job_was_deleted_go_too(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    task_id = await accepted(gateway)
    running = part(store, task_id, 0)
    store.redis.delete(f"yolo:job:{task_id}")
    assert store.deliver(running, b"x").status == "stale"
    assert store.claim(part_of(task_id, 1), "w1", [MODEL]) == "unknown"
    assert await gateway.recount(0) == ["1 places of jobs that are gone"]
    assert nothing_is_left(store, task_id)


async def test_a_job_whose_parts_were_deleted_expires(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    task_id = await accepted(gateway)
    first = part(store, task_id, 0)
    store.redis.delete(f"yolo:job:{part_of(task_id, 1)}")
    assert store.deliver(first, b"one").status == "delivered"
    last = part(store, task_id, 2)
    assert store.deliver(last, b"three").status == "delivered", "one is missing"
    store.redis.zincrby("yolo:in-parts", -(settings.max_queue_seconds + 1) * 1000, task_id)
    await gateway.sweep()
    assert await state_of(gateway, task_id) is JobState.EXPIRED
    assert nothing_is_left(store, task_id)
    assert not store.redis.exists("yolo:in-parts")


async def test_parts_of_a_job_that_has_ended_are_not_run(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    """Such as an older gateway has cancelled, which knows nothing of parts."""
    task_id = await accepted(gateway)
    running = part(store, task_id, 0)
    store.redis.hset(f"yolo:job:{task_id}", "state", "cancelled")
    assert store.claim(part_of(task_id, 1), "w1", [MODEL]) == "unknown"
    assert store.deliver(running, b"one").status == "stale"
    assert not commit(store, running, task_id)
    assert await state_of(gateway, task_id) is JobState.CANCELLED


async def test_what_is_found_for_others_is_kept_while_the_part_is_held(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    task_id = await accepted(gateway)
    attempt = part(store, task_id, 0)
    assert store.keep_found(attempt, 2, b"again")
    assert store.found(attempt) == {2: b"again"}
    store.abandon(attempt.task_id, "timeout", attempt=1)
    assert not store.keep_found(attempt, 1, b"late")
    assert store.found(attempt) == {2: b"again"}


async def test_a_new_client_gets_the_lane_with_the_least_work(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    await accepted(gateway, "tiles")
    for number in range(7):
        for _ in range(4):
            await gateway.accept(job(f"client {number}"))
    record, _ = await gateway.accept(job("new"))
    lane = store.redis.hget(f"yolo:job:{record.task_id}", "lane")
    assert lane != f"{MODEL}.0".encode(), "24 passes wait there"


async def test_a_full_queue_says_when_its_work_is_done(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    store.heartbeat("w1", report(), [])
    store.redis.hset(f"yolo:model:{MODEL}", mapping={"run_us": 1_000_000})
    full = GatewayStore(settings.model_copy(update={"max_queue_jobs": 4 * PARTS}))
    try:
        for _ in range(4):
            await full.accept(job(parts=PARTS))
        with pytest.raises(QueueFull) as refused:
            await full.accept(job())
        assert refused.value.retry_after_seconds == 4 * PARTS * PART_PASSES / 10
    finally:
        await full.close()


async def test_a_job_of_other_models_parts_is_passed_on(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    task_id = await accepted(gateway)
    assert store.claim(part_of(task_id, 0), "w1", ["other"]) == "elsewhere"
    assert store.republish(part_of(task_id, 0)) == 1


async def test_the_bound_on_jobs_counts_parts(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    few = 4 * PARTS
    small = GatewayStore(settings.model_copy(update={"max_queue_jobs": few}))
    try:
        for _ in range(few - PARTS + 1):
            await small.accept(job())
        with pytest.raises(QueueFull):
            await small.accept(job(parts=PARTS))
        assert store.redis.llen(FIRST_LANE) == few - PARTS + 1
        await small.accept(job("b", parts=PARTS - 1))
    finally:
        await small.close()


async def test_a_job_takes_a_quarter_of_a_short_queue(settings: Settings) -> None:
    few = settings.model_copy(update={"max_queue_jobs": 8})
    small, store = GatewayStore(few), WorkerStore(few)
    try:
        record, _ = await small.accept(job(parts=PARTS))
        assert part(store, record.task_id, 0).record.parts == 2
    finally:
        await small.close()


async def test_a_producers_task_is_adopted_in_parts(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    inline: NewJob = job(parts=PARTS)
    assert store.accept(inline, adopt=True)
    assert store.redis.llen(FIRST_LANE) == PARTS
    assert store.claim(inline.task_id, "w1", [MODEL]) == "in parts"
    first = part(store, inline.task_id, 0)
    # The process that adopted it may die at once.
    assert store.abandon(inline.task_id, "worker_lost", worker="w1") == "stale"
    assert store.deliver(first, b"one").status == "delivered"
    assert await state_of(gateway, inline.task_id) is JobState.PROCESSING


async def test_position_counts_work(gateway: GatewayStore, store: WorkerStore) -> None:
    tiled = await accepted(gateway, "a")
    behind, _ = await gateway.accept(job("a"))
    other, _ = await gateway.accept(job("b"))
    found = await gateway.read(tiled)
    assert found is not None

    async def position(task_id: str) -> int | None:
        record = await gateway.read(task_id)
        assert record is not None
        return record[0].position

    work = PARTS * PART_PASSES
    assert await position(tiled) == 2, "the other client has a turn before it"
    assert await position(behind.task_id) == work + 2
    assert await position(other.task_id) == 2
    store.deliver(part(store, tiled, 0), b"one")
    assert await position(behind.task_id) == work - PART_PASSES + 2
    assert await position(other.task_id) == 2


async def test_the_estimate_of_a_job_in_parts_is_for_its_last_part(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    store.heartbeat("w1", report(), [])
    store.redis.hset(f"yolo:model:{MODEL}", mapping={"run_us": 100_000})
    tiled = await accepted(gateway)
    found = await gateway.read(tiled)
    assert found is not None
    assert found[0].position == 1
    assert found[0].eta_ms == (PARTS * PART_PASSES + 1) * 100
