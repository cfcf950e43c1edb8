"""What the gateway makes of the messages about jobs on Redis' channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import redis

from tests.support.client import submit
from tests.support.images import encoded, noise, sample
from tests.support.stack import Stack, wait_until

IMAGE = encoded(noise(40, 30), "PNG")


def watched(client: httpx.Client) -> bool:
    return "yolo_queue_gateway_waiting_requests 0.0" not in client.get("/metrics").text


@pytest.mark.parametrize(
    "text", ["some-id paused", "some-id", "", b"\xff\xfe \xff", "a b c d", " completed"]
)
def test_unknown_messages_are_ignored(
    stack: Stack, client: httpx.Client, text: str | bytes
) -> None:
    """As from a newer gateway or worker in a rolling upgrade."""
    with redis.Redis(port=stack.redis.port) as broker:
        assert broker.publish("yolo:changes", text) == 1
        job = submit(client, sample())
        begin = time.monotonic()
        answer = client.get(job["links"]["self"], params={"wait": 25})
        assert answer.json()["status"] == "completed"
        assert time.monotonic() - begin < 20, "woken, not timed out"
        assert broker.publish("yolo:changes", "x queued") == 1, "the same gateway still listens"
    assert client.get("/ready").status_code == 200
    assert 'background_failures_total{background="job changes"} 0.0' in client.get("/metrics").text


def test_an_unknown_state_wakes_the_waiters(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It may be an end, so they look."""
    with (
        Stack(tmp_path_factory.mktemp("unknown")) as stack,
        httpx.Client(base_url=stack.url) as client,
    ):
        stack.start(workers=0)
        job = submit(client, IMAGE)
        with (
            redis.Redis(port=stack.redis.port) as broker,
            waiting(stack, job["links"]["self"]) as answers,
        ):
            wait_until(lambda: watched(client), seconds=10, what="the gateway holds the request")
            broker.delete(f"yolo:job:{job['task_id']}")
            broker.publish("yolo:changes", f"{job['task_id']} archived")
            wait_until(lambda: answers, seconds=20, what="the waiter is answered")
    assert answers[0].status_code == 404


@contextmanager
def waiting(stack: Stack, path: str) -> Iterator[list[httpx.Response]]:
    answers: list[httpx.Response] = []

    def wait() -> None:
        answers.append(httpx.get(stack.url + path, params={"wait": 60}, timeout=90))

    thread = threading.Thread(target=wait)
    thread.start()
    yield answers
    thread.join(timeout=90)
