"""`IMAGE_REDIS_URL`: the images on a server of their own, everything else on the first."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
import redis

from shared.job.dead_letters import DeadLetters
from shared.settings import Settings
from tests.chaos.cases import poison_case
from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise
from tests.support.stack import Stack, free_port, wait_until
from yolo_queue.server.embedded_redis import EmbeddedRedis

IMAGE = encoded(noise(40, 30), "PNG")


@dataclass
class Split:
    stack: Stack
    images: EmbeddedRedis
    first: redis.Redis
    second: redis.Redis


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    images = EmbeddedRedis(tmp_path_factory.mktemp("images"), free_port(), max_bytes=1 << 30)
    images.start()
    try:
        with Stack(
            tmp_path_factory.mktemp("stack"), IMAGE_REDIS_URL=images.url, MAX_ATTEMPTS="1"
        ) as stack:
            stack.redis.start()
            stack.gateway = stack.start_gateway()
            stack.workers = [stack.start_worker(app="tests.chaos.app")]
            stack.wait_ready(processes=2)
            with (
                redis.Redis(port=stack.redis.port) as first,
                redis.Redis(port=images.port) as second,
            ):
                yield Split(stack, images, first, second)
    finally:
        images.stop()


@pytest.fixture
def client(split: Split) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=split.stack.url, timeout=30) as client:
        yield client


@contextmanager
def held_worker(stack: Stack) -> Iterator[None]:
    """What is submitted meanwhile stays queued."""
    os.killpg(stack.workers[0].pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(stack.workers[0].pid, signal.SIGCONT)


def test_the_image_lives_on_the_second_server_alone(split: Split, client: httpx.Client) -> None:
    with held_worker(split.stack):
        task_id = submit(client, IMAGE)["task_id"]
        key = f"yolo:image:{task_id}"
        assert split.second.get(key) == IMAGE
        assert split.second.ttl(key) > 0
        assert split.first.exists(key) == 0
        assert split.first.exists(f"yolo:job:{task_id}") == 1
        assert split.second.keys("*") == [key.encode()], "nothing but the image"
    assert wait_for(client, task_id)["status"] == "completed"
    wait_until(lambda: not split.second.exists(key), seconds=5, what="the image is deleted")


def test_cancelling_deletes_the_image(split: Split, client: httpx.Client) -> None:
    with held_worker(split.stack):
        task_id = submit(client, IMAGE)["task_id"]
        assert client.delete(f"/result/{task_id}").json()["status"] == "cancelled"
        assert split.second.exists(f"yolo:image:{task_id}") == 0


def test_a_dead_letter_keeps_its_image_and_can_be_retried(
    split: Split, client: httpx.Client
) -> None:
    poison = poison_case("raise").image
    task_id = submit(client, poison)["task_id"]
    assert wait_for(client, task_id)["status"] == "failed"
    wait_until(
        lambda: split.second.get(f"yolo:dead-image:{task_id}") == poison,
        seconds=5,
        what="the image is the letter's",
    )
    assert split.second.exists(f"yolo:image:{task_id}") == 0
    letters = DeadLetters(
        Settings(redis_url=split.stack.redis.url, image_redis_url=split.images.url)
    )
    again = letters.retry(task_id)
    assert again is not None
    assert wait_for(client, again)["status"] == "failed", "it is the same poison"
    letters.purge([task_id, again])
    assert split.second.exists(f"yolo:dead-image:{again}") == 0


def test_the_second_server_away(split: Split, client: httpx.Client) -> None:
    """Uploads are refused in words and in time; an accepted job waits for its image."""
    with held_worker(split.stack):
        waiting = submit(client, IMAGE)["task_id"]
        split.images.kill()
        begin = time.monotonic()
        answer = client.post("/predict/", files={"file": IMAGE})
        assert time.monotonic() - begin < 3
        assert answer.status_code == 503
        assert answer.json()["code"] == "redis_unavailable"
        assert "does not answer" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        # What needs no image goes on.
        assert client.get(f"/result/{waiting}").json()["status"] == "queued"
        assert client.get("/queue").status_code == 200
    log = split.stack.log("worker-w1")
    wait_until(
        lambda: f"waiting for it [{waiting}]" in log.read_text(), seconds=20, what="it waits"
    )
    split.images.start()
    assert wait_for(client, waiting)["status"] == "completed"
    assert submit(client, IMAGE)["status"] == "queued"
