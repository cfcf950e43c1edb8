"""What Redis is told about messages: nothing about those of jobs that have records; that an inline
task is done, with the next one, or soon, or at the end. And a worker can leave a Redis that is
gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Consumer, Exchange, Queue
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from kombu.common import ignore_errors

from shared.job.message import first_message
from shared.settings import Settings
from tests.support.stack import free_port, wait_until
from worker.app import create_app
from yolo_queue.server.embedded_redis import EmbeddedRedis


@pytest.fixture
def server(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(
        settings.redis_url.get_secret_value(), decode_responses=True
    ) as client:
        yield client


@pytest.fixture
def messages(settings: Settings) -> Iterator[Any]:
    """A queue with three messages, as a worker sees it; its loop turns when a test says."""
    before, loop = get_event_loop(), Hub()
    set_event_loop(loop)
    with create_app(settings).connection_for_read() as connection:
        queue = connection.SimpleQueue(settings.yolo_queue)
        for number in range(3):
            queue.put({"number": number})
        yield queue
    set_event_loop(before)
    loop.close()


def unacked(server: redis.Redis) -> set[str]:
    known = set(server.hkeys("unacked"))
    assert known == set(server.zrange("unacked_index", 0, -1))
    return known


def test_an_acknowledgement_goes_with_the_next_message(server: redis.Redis, messages: Any) -> None:
    first = messages.get(timeout=5)
    assert unacked(server) == {first.delivery_tag}
    first.ack()
    assert unacked(server) == {first.delivery_tag}, "no job has waited for it"
    second = messages.get(timeout=5)
    assert unacked(server) == {second.delivery_tag}


def test_without_another_message_it_goes_soon(server: redis.Redis, messages: Any) -> None:
    messages.get(timeout=5).ack()
    second = messages.get(timeout=5)
    second.ack()
    loop = get_event_loop()
    wait_until(lambda: loop.run_once() or not unacked(server), seconds=5, what="Redis is told")


def test_one_that_is_given_back_comes_next(server: redis.Redis, messages: Any) -> None:
    first = messages.get(timeout=5)
    messages.get(timeout=5).ack()
    first.requeue()
    left = [messages.get(timeout=5) for _ in range(2)]
    assert [message.payload["number"] for message in left] == [0, 2]
    assert unacked(server) == {message.delivery_tag for message in left}


def test_at_the_end_nothing_is_left_untold(server: redis.Redis, messages: Any) -> None:
    first = messages.get(timeout=5)
    second = messages.get(timeout=5)
    first.ack()
    messages.channel.connection.client.close()
    assert unacked(server) == set()
    left = server.lrange(messages.queue.name, 0, -1)
    assert len(left) == 2, "the one that was never got, and the one that was never acknowledged"
    assert sum(second.delivery_tag in text for text in left) == 1


@pytest.fixture
def job_messages(server: redis.Redis, messages: Any, settings: Settings) -> Any:
    """The same queue with messages about two jobs alone."""
    messages.clear()
    for task_id in ("first", "second"):
        server.lpush(settings.yolo_queue, first_message(task_id, settings.yolo_queue))
    return messages


def test_a_job_with_a_record_costs_no_acknowledgement(
    server: redis.Redis, job_messages: Any
) -> None:
    before = server.info("stats")["total_commands_processed"]
    for _ in range(2):
        job_messages.get(timeout=5).ack()
    assert unacked(server) == set()
    commands = server.info("stats")["total_commands_processed"] - before
    assert commands <= 2 + 3, "two deliveries, and what this test itself asks"
    job_messages.channel.connection.client.close()
    assert server.llen(job_messages.queue.name) == 0, "nothing comes back"


def test_a_jobs_message_that_is_given_back_comes_next(
    server: redis.Redis, job_messages: Any
) -> None:
    first = job_messages.get(timeout=5)
    first.requeue()
    left = [job_messages.get(timeout=5) for _ in range(2)]
    assert [message.headers["id"] for message in left] == ["first", "second"]
    assert unacked(server) == set()


def test_at_the_end_messages_of_jobs_are_given_back(server: redis.Redis, job_messages: Any) -> None:
    job_messages.get(timeout=5).ack()
    job_messages.get(timeout=5)
    job_messages.channel.connection.client.close()
    (left,) = server.lrange(job_messages.queue.name, 0, -1)
    assert json.loads(left)["headers"]["id"] == "second"


def test_a_lost_connection_can_be_closed(tmp_path: Path) -> None:
    """With one message in hand and another asked for, by the steps of Celery's worker: it ends
    itself over any error in the second."""
    server = EmbeddedRedis(tmp_path, free_port())
    server.start()
    connection = create_app(Settings(redis_url=server.url)).connection_for_read()
    queue = connection.SimpleQueue("yolo")
    queue.put({"number": 0})
    replies = Queue("replies", Exchange("replies", type="fanout"), auto_delete=True)
    with suppress(*connection.connection_errors), Consumer(connection.channel(), [replies]):
        queue.get(timeout=5)
        queue.channel._brpop_start()
        server.kill()
    with suppress(Exception):
        connection.collect(socket_timeout=1)
    ignore_errors(connection, connection.close)
    assert queue.channel.closed
