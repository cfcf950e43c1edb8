"""A Redis that refuses a large picture: what the refusal costs, on both sides."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from api.rate_limit import RateLimiter
from shared.errors import StoreUnavailable
from shared.job.celery_result import success_meta
from shared.job.gateway_store import GatewayStore
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from shared.settings import Settings
from tests.support.jobs import FIRST_LANE, claimed, job, report
from tests.support.stack import wait_until

pytestmark = pytest.mark.anyio

MIB = 1 << 20


class Picture(bytes):
    """Bytes whose end can be seen."""


@contextmanager
def no_room(store: WorkerStore) -> Iterator[None]:
    used = store.redis.info("memory")["used_memory"]
    store.redis.config_set("maxmemory", used + MIB // 4)
    try:
        yield
    finally:
        store.redis.config_set("maxmemory", 0)


@contextmanager
def only_reference_counts() -> Iterator[None]:
    """Without the garbage collector, what refers to itself stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_a_refused_upload_is_gone_at_once(gateway: GatewayStore, store: WorkerStore) -> None:
    size = 4 * MIB
    kept = job(image=b"small")
    await gateway.accept(kept)  # scripts loaded, connection open
    image = Picture(b"\xff\x00 " * (size // 3))
    end = weakref.ref(mark := type("Mark", (), {})())
    image.mark = mark  # type: ignore[attr-defined]
    refused = job(image=image)
    del mark, image
    with no_room(store), only_reference_counts():
        tracemalloc.start()
        try:
            with pytest.raises(StoreUnavailable, match="no memory left") as caught:
                await gateway.accept(refused)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The copy in the socket's buffer; redis-py's message would be fifteen times the upload.
        assert peak < 2 * size, f"{peak / MIB:.0f} MiB for an upload of {size / MIB:.0f}"
        assert len(str(caught.value.__cause__)) < 200
        del caught, refused
        assert end() is None, "something still holds the refused upload"
    assert store.redis.llen(FIRST_LANE) == 1


async def test_a_refused_result_costs_a_worker_little(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    record, _ = await gateway.accept(job())
    attempt = claimed(store, record.task_id)
    meta = success_meta(record.task_id, {"by": 1}, b"\xff\x00 " * MIB)
    with no_room(store):
        tracemalloc.start()
        try:
            with pytest.raises(redis.OutOfMemoryError) as caught:
                store.complete(attempt, meta)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2 * len(meta), f"{peak / MIB:.0f} MiB for a result of {len(meta) / MIB:.0f}"
    assert len(str(caught.value)) < 200


async def test_a_full_redis_counts_no_submission(settings: Settings, store: WorkerStore) -> None:
    limiter = RateLimiter(settings.model_copy(update={"rate_limit": "5/minute"}))
    store.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="no memory left"):
            await limiter.check("a client")
    finally:
        store.redis.config_set("maxmemory", 0)
        await limiter.close()


async def test_a_refused_batch_leaves_no_image(gateway: GatewayStore, store: WorkerStore) -> None:
    await gateway.accept(job(image=b"small"))
    keys = store.redis.dbsize()
    size = MIB // 16
    with no_room(store), pytest.raises(StoreUnavailable, match="no memory left"):
        await gateway.accept_all([job(image=bytes(size)) for _ in range(16)])
    assert store.redis.dbsize() == keys


async def test_a_full_redis_takes_every_heartbeat(
    gateway: GatewayStore, store: WorkerStore
) -> None:
    """Refused ones would be a worker's that is there; its jobs would be given to others."""
    record, _ = await gateway.accept(job())
    claimed(store, record.task_id)
    store.heartbeat("w1", report(), [record.task_id])
    before = store.redis.zscore("yolo:leases", record.task_id)
    store.redis.config_set("maxmemory", 1)
    try:
        store.heartbeat("w2", report(), [])

        def renewed() -> bool:
            store.heartbeat("w1", report(), [record.task_id])
            return bool(store.redis.zscore("yolo:leases", record.task_id) > before)

        wait_until(renewed, seconds=5, what="the lease is renewed")
    finally:
        store.redis.config_set("maxmemory", 0)
    assert store.redis.hkeys("yolo:workers") == [b"w1", b"w2"]


async def test_a_replica_is_as_good_as_away(gateway: GatewayStore, store: WorkerStore) -> None:
    """As is a server whose disk is full: it answers, and takes nothing."""
    store.redis.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable, match="refuses writes"):
            await gateway.accept(job())
        with pytest.raises(UNAVAILABLE):
            store.heartbeat("w1", report(), [])
    finally:
        store.redis.replicaof("NO", "ONE")
    await gateway.accept(job())
