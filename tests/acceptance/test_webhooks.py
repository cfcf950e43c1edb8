"""Webhooks of a real gateway: what it refuses, what arrives, and how it starts and stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from standardwebhooks import Webhook

from tests.support.client import problem, submit
from tests.support.images import encoded, noise
from tests.support.machine import environment
from tests.support.receivers import SECRET, HeldConnection, receiver
from tests.support.stack import Stack, wait_until

SMALL = encoded(noise(40, 30), "PNG")


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway that sends webhooks, also to this machine. Without a worker, jobs end cancelled."""
    with Stack(
        tmp_path_factory.mktemp("webhooks"), WEBHOOK_SECRET=SECRET, WEBHOOK_ALLOW_PRIVATE="true"
    ) as stack:
        yield stack.start(workers=0)


@pytest.fixture
def sending_client(sending: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sending.url, timeout=30) as client:
        yield client


def refusal(client: httpx.Client, url: str) -> str:
    """What the refusal of a webhook's URL says."""
    answer = client.post("/predict/", files={"file": SMALL}, params={"webhook_url": url})
    return str(problem(answer, 422, "invalid_parameter")["detail"])


def end_a_job(client: httpx.Client, webhook_url: str) -> str:
    """The link of a job that has just ended."""
    link = str(submit(client, SMALL, webhook_url=webhook_url)["links"]["self"])
    assert client.delete(link).status_code == 200
    return link


def test_a_webhook_is_signed_and_sent_again_until_it_is_accepted(
    sending_client: httpx.Client,
) -> None:
    with receiver(failures=1) as (url, got):
        link = end_a_job(sending_client, url)
        wait_until(lambda: len(got) == 2, seconds=60, what="the second try")
    for headers, body in got:
        notice = Webhook(SECRET).verify(body, headers)
        assert notice["type"] == "job.cancelled"
        assert notice["data"]["links"]["self"] == link
        assert "image" not in notice["data"]
        assert headers["host"] == url.split("/")[2]
    assert got[0][1] == got[1][1]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://user:pw@example.com/",
        "http://[::1",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://a..b/",
        f"http://{'a' * 73}.example/",
        f"http://{'a.' * 126}com/",
        "http://exam\nple.com/",
        "http://example.com/\r\n",
        "http://example.com/a b",
        "http://example.com/\x00",
    ],
)
def test_a_url_that_can_never_be_posted_to_is_refused(
    sending_client: httpx.Client, url: str
) -> None:
    assert refusal(sending_client, url).startswith("webhook_url: ")


def test_a_batch_is_refused_for_its_url_too(sending_client: httpx.Client) -> None:
    answer = sending_client.post(
        "/predict/batch", files=[("files", ("a.png", SMALL))], params={"webhook_url": "http://[::1"}
    )
    problem(answer, 422, "invalid_parameter")


def test_private_addresses_are_refused_at_once_unless_allowed(
    client: httpx.Client, sending_client: httpx.Client
) -> None:
    for host in ("localhost", "127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "[fd00::1]"):
        assert "WEBHOOK_ALLOW_PRIVATE" in refusal(client, f"http://{host}/hook")
    job = submit(sending_client, SMALL, webhook_url="http://127.0.0.1:9/")
    assert sending_client.delete(job["links"]["self"]).status_code == 200


def test_without_a_secret_there_are_no_webhooks(client: httpx.Client) -> None:
    assert "WEBHOOK_SECRET" in refusal(client, "http://receiver.example/")


def test_a_gateway_does_not_start_with_a_secret_it_cannot_sign_with() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api"],
        env=environment(WEBHOOK_SECRET="whsec_hunter2"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "WEBHOOK_SECRET: must be `whsec_` and at least 24 random bytes in Base64" in said
    assert "openssl rand -base64 32" in said
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_a_webhook_that_a_stop_interrupted_is_sent_by_the_next_gateway(tmp_path: Path) -> None:
    with Stack(
        tmp_path, WEBHOOK_SECRET=SECRET, WEBHOOK_ALLOW_PRIVATE="true", LOG_FORMAT="json"
    ) as stack:
        stack.redis.start()
        gateway = stack.start_gateway()
        with HeldConnection() as held, httpx.Client(base_url=stack.url) as client:
            task_id = end_a_job(client, held.url).rpartition("/")[2]
            held.wait(seconds=30)
            gateway.terminate()
            gateway.wait(timeout=20)
        lines = [json.loads(line) for line in stack.log("api").read_text().splitlines()]
        assert not [line for line in lines if "exception" in line or line["level"] == "error"]
        with redis.Redis.from_url(stack.redis.url) as store:
            store.zadd("yolo:webhooks", {task_id: 0})  # as if its lease had ended
        with receiver(port=held.port) as (_, got):
            stack.start_gateway()
            wait_until(lambda: got, seconds=30, what="it is sent")
