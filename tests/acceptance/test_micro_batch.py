"""Several jobs in one forward pass, on a real stack: each is still a job of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from PIL import Image

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, photograph, sample, undecodable
from tests.support.metrics import samples, scrape, value
from tests.support.poison import poison
from tests.support.processes import pool_pids
from tests.support.stack import Stack, free_port, wait_until

MOST = 4
WORKER_PORT = free_port()
LARGE = encoded(Image.new("RGB", (4000, 3000)), "PNG")
"""Four of them are long enough at work to be found there."""


@pytest.fixture(scope="module")
def batching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("batching"),
        MICRO_BATCH_JOBS=str(MOST),
        WORKER_CONCURRENCY="1",
        MAX_ATTEMPTS="2",
        LEASE_SECONDS="4",
        SLOW_SECONDS="7",
        WORKER_METRICS_PORT=str(WORKER_PORT),
    ) as stack:
        stack.start(workers=0)
        stack.workers = [stack.start_worker("w", app="tests.chaos.app")]
        stack.wait_ready()
        yield stack


@pytest.fixture
def client(batching: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=batching.url, timeout=30) as client:
        yield client


@pytest.fixture
def store(batching: Stack) -> Iterator[redis.Redis]:
    with redis.Redis(port=batching.redis.port) as store:
        yield store


def counted() -> tuple[float, float]:
    """(batches, jobs in them) so far."""
    now = samples(scrape(f"http://127.0.0.1:{WORKER_PORT}/metrics"))
    names = ("yolo_queue_worker_batches_total", "yolo_queue_worker_batch_jobs_total")
    return value(now, names[0]), value(now, names[1])


def together(batching: Stack, client: httpx.Client, *images: bytes) -> list[str]:
    """Send these while the one process stands still, so that it finds them all waiting."""
    batching.wait_ready()
    (process,) = pool_pids(batching.workers[0])
    os.kill(process, signal.SIGSTOP)
    try:
        return [submit(client, image)["task_id"] for image in images]
    finally:
        os.kill(process, signal.SIGCONT)


def at_work(store: redis.Redis, ids: list[str]) -> None:
    def held() -> bool:
        leases = {name.decode() for name in store.zrange("yolo:leases", 0, -1)}
        return leases >= set(ids)

    wait_until(held, seconds=30, what="all of the batch are being worked on")


def events(store: redis.Redis, task_id: str) -> list[str]:
    return [fields[b"status"].decode() for _, fields in store.xrange(f"yolo:events:{task_id}")]


def ends(client: httpx.Client, ids: list[str], *, seconds: float = 40) -> list[dict[str, Any]]:
    return [wait_for(client, task_id, seconds=seconds) for task_id in ids]


def test_many_mixed_jobs_have_the_results_they_have_alone(
    client: httpx.Client, store: redis.Redis
) -> None:
    images = [sample(name) for name in ("mixed.jpg", "barcode.jpg", "qr_code.jpg", "screen.jpg")]
    images += [photograph(), encoded(noise(500, 400), "PNG")]
    kinds = [(image, conf) for image in images for conf in (0.25, 0.6)]
    alone = [
        wait_for(client, submit(client, image, conf=conf)["task_id"])["detections"]
        for image, conf in kinds
    ]
    assert any(alone)
    before = counted()
    sent = [
        (submit(client, image, conf=conf)["task_id"], expected)
        for _ in range(4)
        for (image, conf), expected in zip(kinds, alone, strict=True)
    ]
    for task_id, expected in sent:
        job = wait_for(client, task_id)
        assert (job["status"], job["attempts"]) == ("completed", 1)
        assert job["detections"] == expected
        assert job["image"].startswith("data:image/jpeg;base64,")
        stages = job["timings_ms"]
        assert all(stages[name] <= stages["total"] for name in stages)
        assert events(store, task_id) == ["queued", "processing", "completed"]
    batches, jobs = (now - then for now, then in zip(counted(), before, strict=True))
    assert jobs > len(sent) / 2, "most of them had mates"
    assert 2 <= jobs / batches <= MOST
    lists = ["yolo", *(f"yolo.{lane}" for lane in range(1, 8))]
    wait_until(
        lambda: not any(map(store.llen, lists)), seconds=10, what="the mates' messages are dropped"
    )
    assert int(store.hget("yolo:stats", "queued_bytes") or 0) == 0


def test_a_broken_image_fails_alone(batching: Stack, client: httpx.Client) -> None:
    before = counted()
    jobs = ends(client, together(batching, client, sample(), undecodable(1), sample(), sample()))
    assert [job["status"] for job in jobs] == ["completed", "failed", "completed", "completed"]
    assert jobs[1]["error"]["code"] == "image_undecodable"
    assert {job["attempts"] for job in jobs} == {1}
    assert counted() == (before[0] + 1, before[1] + 4)


def test_an_image_that_raises_fails_alone(batching: Stack, client: httpx.Client) -> None:
    jobs = ends(client, together(batching, client, sample(), poison("raise"), sample()))
    assert [job["status"] for job in jobs] == ["completed", "failed", "completed"]
    assert [job["attempts"] for job in jobs] == [1, 2, 1], "its mates ran one by one"
    assert jobs[1]["error"]["code"] == "internal"


def test_a_killed_process_gives_back_its_batch_and_the_culprit_is_found(
    batching: Stack, client: httpx.Client, store: redis.Redis
) -> None:
    before = counted()
    ids = together(batching, client, sample(), poison("kill"), sample())
    jobs = ends(client, ids, seconds=60)
    assert [job["status"] for job in jobs] == ["completed", "failed", "completed"]
    assert {job["attempts"] for job in jobs} == {2}, "it costs an innocent one attempt"
    assert jobs[1]["error"]["code"] == "worker_lost"
    # The batch was counted before it began; afterwards each ran alone.
    assert counted() == (before[0] + 1, before[1] + 3)
    log = batching.log("worker-w").read_text()
    for task_id in ids:
        assert f"attempt abandoned (worker_lost): requeued [{task_id}]" in log, (
            "by the parent, at once"
        )
        lost, queued = (store.xrange(f"yolo:events:{task_id}")[at][0] for at in (1, 2))
        assert int(queued.split(b"-")[0]) - int(lost.split(b"-")[0]) < 5000  # ms


def test_a_cancelled_mate_commits_nothing(
    batching: Stack, client: httpx.Client, store: redis.Redis
) -> None:
    ids = together(batching, client, *[LARGE] * MOST)
    at_work(store, ids)
    assert client.delete(f"/result/{ids[2]}").json()["status"] == "cancelled"
    jobs = ends(client, ids)
    assert [job["status"] for job in jobs] == ["completed"] * 2 + ["cancelled", "completed"]
    assert events(store, ids[2]) == ["queued", "processing", "cancelled"]


def test_mates_keep_their_leases_as_long_as_the_batch_takes(
    batching: Stack, client: httpx.Client, store: redis.Redis
) -> None:
    """Longer than a lease."""
    ids = together(batching, client, sample(), poison("slow"), sample())
    for job in ends(client, ids):
        assert (job["status"], job["attempts"]) == ("completed", 1)
        assert events(store, job["task_id"]) == ["queued", "processing", "completed"]
