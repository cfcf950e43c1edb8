"""Which jobs are claimed along with one for a micro-batch; each is a job like any other."""

from __future__ import annotations

import json

import pytest

from shared.job.celery_result import success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.record import Attempt, DetectParameters, JobState, NewJob
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import (
    FIRST_LANE,
    MODEL,
    MODELS,
    Clock,
    claimed,
    events_of,
    report,
    state_of,
)

pytestmark = pytest.mark.anyio


async def accept(
    gateway: GatewayStore,
    owner: str = "a",
    *,
    conf: float = 0.25,
    width: int = 4,
    task_id: str = "",
) -> str:
    more = {"task_id": task_id} if task_id else {}
    parameters = DetectParameters(conf=conf)
    job = NewJob(owner, MODEL, b"image", "image/png", width, 3, parameters, **more)
    return (await gateway.accept(job))[0].task_id


def ids(others: list[Attempt]) -> list[str]:
    return [other_id.task_id for other_id in others]


async def test_they_are_claimed_as_jobs_are(gateway: GatewayStore, store: WorkerStore) -> None:
    first, other_id, third = [await accept(gateway) for _ in range(3)]
    attempt = claimed(store, first)
    (found,) = store.claim_more(attempt, "w1", 1)
    assert (found.task_id, found.number) == (other_id, 1)
    assert found.record.state is JobState.PROCESSING
    assert found.record.started_ms is not None
    assert set(store.redis.zrange("yolo:leases", 0, -1)) == {first.encode(), other_id.encode()}
    assert store.redis.hget(f"yolo:job:{other_id}", "worker") == b"w1"
    assert await events_of(store, other_id) == ["queued", "processing"]
    queue = await gateway.queue()
    assert queue.depth == 1
    assert queue.stats["attempts"] == 2
    assert queue.stats["queued_bytes"] == len(b"image")
    assert await state_of(gateway, third) is JobState.QUEUED


async def test_their_messages_are_taken_too(gateway: GatewayStore, store: WorkerStore) -> None:
    first, other, *others = [
        await accept(gateway, conf=conf) for conf in (0.25, 0.5, 0.25, 0.25, 0.25)
    ]
    lane_1 = await accept(gateway, "b")
    left = await accept(gateway)
    store.redis.rpop(FIRST_LANE)
    found = ids(store.claim_more(claimed(store, first), "w1", 4))
    assert found == [lane_1, *others]
    messages = store.redis.lrange(FIRST_LANE, 0, -1)
    assert [json.loads(one)["headers"]["id"] for one in messages] == [left, other]
    assert store.redis.llen("yolo.demo.1") == 0


async def test_a_job_that_is_given_back_has_one_message(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first, other_id = [await accept(gateway) for _ in range(2)]
    store.redis.rpop(FIRST_LANE)
    store.claim_more(claimed(store, first), "w1", 3)
    assert store.abandon(other_id, "worker_lost", attempt=1) == "requeued"
    (message,) = store.redis.lrange(FIRST_LANE, 0, -1)
    assert json.loads(message)["headers"]["id"] == other_id
    assert claimed(store, other_id).number == 2


async def test_a_message_that_was_in_hand_already_is_dropped(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first, other_id = [await accept(gateway) for _ in range(2)]
    attempt = claimed(store, first)
    store.redis.delete(FIRST_LANE)
    (found,) = store.claim_more(attempt, "w1", 3)
    assert store.claim(other_id, "w2", MODELS) == "running"
    assert store.complete(found, success_meta(other_id, {"by": 1}))
    assert store.claim(other_id, "w2", MODELS) == "finished"
    assert not store.complete(found, success_meta(other_id, {"by": 2})), "once is enough"
    assert await events_of(store, other_id) == ["queued", "processing", "completed"]
    assert store.complete(attempt, success_meta(first, {}))


async def test_lanes_are_taken_from_in_turn(gateway: GatewayStore, store: WorkerStore) -> None:
    heavy = [await accept(gateway, "heavy") for _ in range(20)]
    light = [await accept(gateway, owner) for owner in ("b", "c")]
    later = await accept(gateway, "b")
    attempt = claimed(store, heavy[0])
    others = ids(store.claim_more(attempt, "w1", 6))
    assert others == [light[0], light[1], heavy[1], later, heavy[2], heavy[3]]


async def test_only_jobs_with_the_same_parameters(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first = await accept(gateway)
    other = await accept(gateway, conf=0.5)
    same = await accept(gateway)
    attempt = claimed(store, first)
    assert ids(store.claim_more(attempt, "w1", 5)) == [same]
    assert await state_of(gateway, other) is JobState.QUEUED


async def test_a_lane_is_looked_at_only_so_far(gateway: GatewayStore, store: WorkerStore) -> None:
    first = await accept(gateway)
    for _ in range(40):
        await accept(gateway, conf=0.5)
    await accept(gateway)
    assert store.claim_more(claimed(store, first), "w1", 7) == []


async def test_what_was_lost_once_joins_no_batch(gateway: GatewayStore, store: WorkerStore) -> None:
    first, lost, fresh = [await accept(gateway) for _ in range(3)]
    claimed(store, lost)
    assert store.abandon(lost, "worker_lost", attempt=1) == "requeued"
    assert ids(store.claim_more(claimed(store, first), "w1", 5)) == [fresh]


async def test_an_attempt_that_lost_its_job_gets_none(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first, other_id = [await accept(gateway) for _ in range(2)]
    attempt = claimed(store, first)
    store.abandon(first, "worker_lost", attempt=1)
    assert store.claim_more(attempt, "w1", 5) == []
    claimed(store, first, "w2")
    assert store.claim_more(attempt, "w1", 5) == []
    assert await state_of(gateway, other_id) is JobState.QUEUED


async def test_the_mark_of_a_lane_stays(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    """They go ahead of jobs whose messages are on their way: those have not vanished."""
    first = await accept(gateway)
    waiting = [await accept(gateway, conf=0.5) for _ in range(3)]
    other_id = await accept(gateway)
    store.redis.rpop(FIRST_LANE)
    attempt = claimed(store, first)
    mark = store.redis.hget("yolo:marks", "taken:demo.0")
    assert ids(store.claim_more(attempt, "w1", 3)) == [other_id]
    assert store.redis.hget("yolo:marks", "taken:demo.0") == mark
    clock = Clock(store)
    for _ in range(4):
        assert store.heartbeat("w1", report(), [first, other_id]).republished == 0
        clock.pass_(settings.lease_seconds + 1)
    assert [await state_of(gateway, task_id) for task_id in waiting] == [JobState.QUEUED] * 3


async def test_a_job_whose_message_vanished_is_found(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first, other_id = [await accept(gateway) for _ in range(2)]
    store.redis.delete(FIRST_LANE)
    assert ids(store.claim_more(claimed(store, first), "w1", 3)) == [other_id]


async def test_overdue_jobs_expire_on_the_way(gateway: GatewayStore, store: WorkerStore) -> None:
    old, first, other_id = [await accept(gateway) for _ in range(3)]
    store.redis.hincrby(f"yolo:job:{old}", "created_ms", -10_000_000)
    assert ids(store.claim_more(claimed(store, first), "w1", 3)) == [other_id]
    assert await events_of(store, old) == ["queued", "expired"]


async def test_other_processes_keep_their_share(gateway: GatewayStore, store: WorkerStore) -> None:
    store.heartbeat("w1", report(3), [])
    first, *_ = [await accept(gateway) for _ in range(7)]
    attempt = claimed(store, first)
    assert len(store.claim_more(attempt, "w1", 7)) == 2, "7 jobs, 3 processes"
    few = await accept(gateway, "b")
    assert len(store.claim_more(claimed(store, few), "w1", 7)) == 1, "5 jobs"
    assert store.claim_more(claimed(store, await accept(gateway, "c")), "w1", 1) != [], "4 jobs"
    store.heartbeat("w1", report(4), [])
    last = claimed(store, await accept(gateway, "d"))
    assert store.claim_more(last, "w1", 7) == [], "3 jobs: a process for each"


async def test_decoded_pictures_are_bounded_together(settings: Settings) -> None:
    tight = settings.model_copy(update={"max_image_pixels": 100})
    gateway, store = GatewayStore(tight), WorkerStore(tight)
    first = await accept(gateway, width=10)
    await accept(gateway, width=30)
    small = [await accept(gateway, width=10) for _ in range(3)]
    assert ids(store.claim_more(claimed(store, first), "w1", 7)) == small[:2]
    await gateway.close()


async def test_a_job_with_a_long_id_runs_alone(gateway: GatewayStore, store: WorkerStore) -> None:
    first = await accept(gateway)
    await accept(gateway, task_id="x" * 65)
    long = await accept(gateway, task_id="y" * 64)
    assert ids(store.claim_more(claimed(store, first), "w1", 3)) == [long]


async def test_a_cancelled_job_of_a_batch_commits_nothing(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    first, other_id = [await accept(gateway) for _ in range(2)]
    (found,) = store.claim_more(claimed(store, first), "w1", 3)
    assert (await gateway.cancel(found.record))[1]
    assert not store.complete(found, success_meta(other_id, {}))
    assert await state_of(gateway, other_id) is JobState.CANCELLED
