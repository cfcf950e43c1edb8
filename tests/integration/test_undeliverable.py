"""Messages that cannot become jobs: dropped, kept as dead letters, and no worker ends over them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from shared.errors import InvalidTask
from shared.job.dead_letters import DeadLetters
from shared.job.message import task_message
from shared.settings import Settings
from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.stack import Stack, wait_until
from worker.app import create_app

Message = dict[str, Any]


def base64_json(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def with_body(text: str) -> Callable[[Message], None]:
    return lambda message: message.update(body=text)


def with_header(**headers: object) -> Callable[[Message], None]:
    return lambda message: message["headers"].update(headers)


def without(part: str, *names: str) -> Callable[[Message], None]:
    def change(message: Message) -> None:
        for name in names:
            del message[part][name]

    return change


CHANGES: dict[str, Callable[[Message], object]] = {
    "body is an object": with_body(base64_json({"a": 1})),
    "body is a short list": with_body(base64_json([1])),
    "body is null": with_body(base64_json(None)),
    "body is a list of wrong things": with_body(base64_json([1, 2, 3])),
    "body is not Base64": with_body("%%%"),
    "body is not JSON": with_body(base64.b64encode(b"{").decode()),
    "body is missing": lambda message: message.pop("body"),
    "body is a number": lambda message: message.update(body=5),
    "time limit of text": with_header(timelimit="soon"),
    "time limits of text": with_header(timelimit=["a", "b"]),
    "id is a list": with_header(id=["x"]),
    "id is an object": with_header(id={}),
    "id is empty": with_header(id=""),
    "id is very long": with_header(id="x" * 100_000),
    "no id": without("headers", "id"),
    "no task": without("headers", "task"),
    "task is a list": with_header(task=[]),
    "unknown task": with_header(task="os.system"),
    "eta is a number": with_header(eta=12),
    "eta is no time": with_header(eta="tomorrow"),
    "expires is a list": with_header(expires=[]),
    "no headers": lambda message: message.pop("headers"),
    "headers are a list": lambda message: message.update(headers=[1]),
    "no properties": lambda message: message.pop("properties"),
    "properties are text": lambda message: message.update(properties="x"),
    "no delivery tag": without("properties", "delivery_tag"),
    "delivery tag is a list": lambda message: message["properties"].update(delivery_tag=[]),
    "delivery info is text": lambda message: message["properties"].update(delivery_info="x"),
    "unknown encoding": lambda message: message["properties"].update(body_encoding="rot13"),
    "pickle": lambda message: message.update({"content-type": "application/x-python-serialize"}),
}
TEXTS = {
    "no JSON": "hello",
    "no text": b"\xff\xfe\x00",
    "empty": "",
    "a number": "7",
    "null": "null",
    "a list": "[1]",
    "an object": "{}",
    "nested": "[" * 100_000,
    "a type that kombu decodes": '{"__type__": "datetime", "__value__": "never"}',
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("undeliverable"), WORKER_CONCURRENCY="1") as stack:
        yield stack.start()


@pytest.fixture(scope="module")
def producer(service: Stack) -> Iterator[Celery]:
    app = create_app(Settings(redis_url=service.redis.url))
    yield app
    app.pool.force_close_all()
    app.close()


def malformed() -> dict[str, str | bytes]:
    texts: dict[str, str | bytes] = dict(TEXTS)
    for number, (name, change) in enumerate(CHANGES.items()):
        message = json.loads(task_message(f"malformed-{number}", "yolo"))
        change(message)
        texts[name] = json.dumps(message)
    return texts


def test_no_message_ends_a_worker_and_none_comes_back(service: Stack) -> None:
    texts = malformed()
    with redis.Redis(port=service.redis.port) as broker:
        for text in texts.values():
            broker.lpush("yolo", text)
        with httpx.Client(base_url=service.url, timeout=30) as client:
            job = submit(client, sample())
            assert wait_for(client, job["task_id"], seconds=60)["status"] == "completed"
        assert service.workers[0].poll() is None
        logs = service.logs()
        assert "Unrecoverable" not in logs
        assert "Connection to broker lost" not in logs
        wait_until(lambda: not broker.llen("yolo"), seconds=10, what="all are taken")
        wait_until(lambda: not broker.hlen("unacked"), seconds=10, what="all are acknowledged")

    settings = Settings(redis_url=service.redis.url)
    letters = DeadLetters(settings)
    found = {letter.message for letter in letters.list()}
    missing = [
        name
        for name, text in texts.items()
        if not any(message is not None and _same(message, text) for message in found)
    ]
    assert missing == []
    assert {letter.error["code"] for letter in letters.list()} == {"undeliverable"}
    assert letters.retry(letters.list()[0].task_id) is None, "there is nothing to retry"


def _same(kept: str, sent: str | bytes) -> bool:
    text = sent.decode(errors="replace") if isinstance(sent, bytes) else sent
    if kept == text[: 64 * 1024]:
        return True
    try:
        return bool(json.loads(kept) == json.loads(text))
    except (ValueError, RecursionError):
        return kept[:1000] == text[:1000]


def test_rubbish_on_the_remote_control_channel_is_survived(service: Stack) -> None:
    with redis.Redis(port=service.redis.port) as broker:
        for text in ("hello", "{}", "[1]", '{"properties": 5}', "null"):
            assert broker.publish("/0.celery.pidbox", text) >= 1
        with httpx.Client(base_url=service.url, timeout=30) as client:
            job = submit(client, sample())
            assert wait_for(client, job["task_id"], seconds=60)["status"] == "completed"
    assert service.workers[0].poll() is None


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {"image": 5}),
        ([], {"image": ["a"]}),
        ([], {"image": "äöü"}),
        ([5], {}),
        (["aGVsbG8=", "aGVsbG8="], {}),
        (["aGVsbG8="], {"image": "aGVsbG8="}),
        ([], {"conf": 0.5}),
        ([], {"image": "aGVsbG8=", "self": 1}),
        ([], {"image": "aGVsbG8=", "conf": []}),
    ],
)
def test_a_producer_of_nonsense_hears_of_it(
    producer: Celery, args: list[Any], kwargs: dict[str, Any]
) -> None:
    outcome = producer.send_task("yolo.detect", args=args, kwargs=kwargs)
    wait_until(outcome.ready, seconds=20, what="the task ends")
    assert isinstance(outcome.result, InvalidTask)
