"""Sending webhooks to receivers of every kind: real sockets, a real Redis, one gateway's sender."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api import webhook_post, webhooks
from api.background import BackgroundTasks
from api.webhooks import MAX_SENDS_PER_HOST, MAX_SENDS_PER_OWNER, WebhookSender
from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.job.keys import job_key
from shared.settings import Settings
from tests.support.jobs import job
from tests.support.receivers import SECRET, SlowReceiver, receiver
from tests.support.tls import Authority, TlsProxy, have_openssl

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "webhook_secret": Settings(webhook_secret=SECRET).webhook_secret,
            "webhook_allow_private": True,
        }
    )


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name under `.test` leads to this machine, so that there are many hosts."""
    look_up = socket.getaddrinfo

    def here(host: str | bytes, *args: Any, **more: Any) -> Any:
        name = host if isinstance(host, str) else host.decode()
        local = name == "localhost" or name.endswith(".test")
        return look_up("127.0.0.1" if local else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", here)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.05)


@asynccontextmanager
async def sending(settings: Settings, gateway: GatewayStore) -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(settings, gateway)
    background = BackgroundTasks()
    sender.start(background)
    try:
        yield sender
    finally:
        await background.stop()
        await sender.stop()


async def ended(gateway: GatewayStore, url: str, owner: str = "a") -> str:
    """A job that has ended and has a webhook."""
    record, _ = await gateway.accept(job(owner, webhook_url=url))
    await gateway.cancel(record)
    return record.task_id


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str, seconds: float = 30
) -> Any:
    """Poll until the condition gives something true, and return that."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


async def letter(gateway: GatewayStore, task_id: str) -> dict[bytes, bytes]:
    return dict(await gateway.redis.hgetall(f"yolo:webhook:{task_id}"))


async def left(gateway: GatewayStore) -> int:
    """Webhooks that are still to be sent."""
    return int(await gateway.redis.zcard("yolo:webhooks"))


# -- one slow receiver, or one client with many of them --------------------------------------------


@pytest.mark.parametrize("drip_seconds", [0.2, 0], ids=["dripping", "silent"])
async def test_a_slow_receiver_holds_up_nobody_else(
    gateway: GatewayStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    drip_seconds: float,
) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    async with SlowReceiver(drip_seconds=drip_seconds) as slow, sending(settings, gateway):
        await ended(gateway, slow.url("slow.test"))
        await until(lambda: slow.open == 1, "it is sent to the slow receiver")
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url)
            await until(lambda: got, "it is sent to the other one, too")
            assert slow.open == 1, "while the slow one is still held"


@pytest.mark.parametrize(("scheme", "drip_seconds"), [("http", 0.05), ("https", 0)])
async def test_a_try_has_one_deadline_for_all_of_it(
    gateway: GatewayStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    drip_seconds: float,
) -> None:
    """A byte of the answer comes every 50 ms, so no read takes as long; or TLS never begins."""
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 0.5)
    async with SlowReceiver(drip_seconds=drip_seconds) as slow, sending(settings, gateway):
        task_id = await ended(gateway, slow.url().replace("http", scheme))
        await until(lambda: slow.most_open == 1 and slow.open == 0, "it is cut off")
        await until(lambda: _waits_to_be_tried_again(gateway, task_id), "the next try is planned")
        assert (await letter(gateway, task_id))[b"attempts"] == b"1"


async def test_a_look_up_that_hangs_is_within_the_deadline(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = asyncio.Event()
    loop = asyncio.get_running_loop()
    released = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: str | bytes, *args: Any, **more: Any) -> Any:
        if host in (b"hanging.test", "hanging.test"):
            loop.call_soon_threadsafe(hanging.set)
            released.wait(60)
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 0.5)
    try:
        async with sending(settings, gateway):
            task_id = await ended(gateway, "http://hanging.test/")
            await until(lambda: _waits_to_be_tried_again(gateway, task_id), "it is cut off")
            assert hanging.is_set()
    finally:
        released.set()


async def test_one_host_takes_only_some_of_the_senders(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    number = 4 * MAX_SENDS_PER_HOST
    async with SlowReceiver() as slow, sending(settings, gateway):
        for n in range(number):
            await ended(gateway, slow.url("slow.test"), owner=f"client {n}")
        await until(lambda: slow.open == MAX_SENDS_PER_HOST, "it has its share")
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url, owner="client 0")
            await until(lambda: got, "another host has its webhook")
        assert slow.most_open == MAX_SENDS_PER_HOST
        slow.release()
        await until(lambda: slow.answered == number, "all of them arrive in the end")
        assert slow.most_open == MAX_SENDS_PER_HOST


async def test_one_client_with_many_hosts_takes_only_some_of_the_senders(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    number = 2 * webhooks.MAX_SENDS
    async with SlowReceiver() as slow, sending(settings, gateway):
        for n in range(number):
            await ended(gateway, slow.url(f"slow{n}.test"), owner="greedy")
        await until(lambda: slow.open == MAX_SENDS_PER_OWNER, "it has its share")
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url, owner="other")
            await until(lambda: got, "another client has its webhook")
        assert slow.most_open == MAX_SENDS_PER_OWNER
        slow.release()
        await until(lambda: slow.answered == number, "all of them arrive in the end")
        assert slow.most_open == MAX_SENDS_PER_OWNER


async def test_thousands_for_a_dead_host_hold_up_nobody_else(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    async with SlowReceiver() as slow:
        pipe = gateway.redis.pipeline(transaction=False)
        for n in range(5000):
            values = {"url": slow.url("dead.test"), "owner": f"client {n}", "attempts": 0}
            pipe.hset(f"yolo:webhook:dead-{n}", mapping={**values, "payload": "{}"})
            pipe.zadd("yolo:webhooks", {f"dead-{n}": n})
        await pipe.execute()
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url)
            async with sending(settings, gateway):
                await until(lambda: got, "it is sent although it is the last one")
                await until(lambda: slow.open == MAX_SENDS_PER_HOST, "the dead host has its share")
                assert slow.most_open == MAX_SENDS_PER_HOST


async def test_what_is_sent_is_written_down_while_its_job_is_there(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes later: the host is at its bound, or there is no sender left."""
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(webhooks, "MAX_SENDS", MAX_SENDS_PER_HOST)
    number = MAX_SENDS_PER_HOST + 2
    async with SlowReceiver() as slow, sending(settings, gateway):
        tasks = [await ended(gateway, slow.url("slow.test")) for _ in range(number - 1)]
        tasks.append(await ended(gateway, slow.url("other.test")))
        for task_id in tasks:
            await until(lambda task_id=task_id: _is_written(gateway, task_id), "it is written")
        await gateway.redis.unlink(*(job_key("yolo", task_id) for task_id in tasks))
        assert slow.answered == 0
        slow.release()
        await until(lambda: slow.answered == number, "all of them arrive")


# -- tries that fail -------------------------------------------------------------------------------


async def failing_once(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, url: str
) -> str:
    """The line in the log about the first try, which has to be a failed one like any other."""
    with caplog.at_level(logging.INFO, logger="yolo_queue.webhooks"):
        async with sending(settings, gateway):
            task_id = await ended(gateway, url)
            await until(lambda: _waits_to_be_tried_again(gateway, task_id), "the next is planned")
    assert (await letter(gateway, task_id))[b"attempts"] == b"1"
    lines = [record for record in caplog.records if task_id in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].getMessage().endswith("; again in 5 s")
    assert not [record for record in caplog.records if record.exc_info], "no traceback"
    return lines[0].getMessage()


@pytest.mark.parametrize(
    "url",
    ["http://a..b/", "http://[::1", "http://receiver.test:99999/", f"http://{'a' * 73}.test/"],
)
async def test_a_url_of_an_earlier_version_that_cannot_be_posted_to(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    assert "webhook_url: " in await failing_once(gateway, settings, caplog, url)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a value"),
        UnicodeError("label too long"),
        httpx.InvalidURL("no URL"),
        httpx.ReadError(""),
        ssl.SSLError(1, "handshake failure"),
        ssl.SSLCertVerificationError(1, "self-signed certificate"),
        OSError(101, "Network is unreachable"),
        socket.gaierror(-2, "Name or service not known"),
        TimeoutError(),
        RuntimeError("of two\nlines"),
        KeyError("key"),
    ],
    ids=repr,
)
async def test_every_error_of_a_try_is_a_failed_try(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    async def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(webhook_post.WebhookPoster, "post", fail)
    line = await failing_once(gateway, settings, caplog, "http://receiver.test/")
    assert type(error).__name__ in line
    assert "\n" not in line


async def test_receivers_that_do_not_speak_http(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def rubbish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(rubbish, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await failing_once(gateway, settings, caplog, f"http://mail.test:{port}/")
        caplog.clear()
        await failing_once(gateway, settings, caplog, f"https://mail.test:{port}/")


async def test_what_cannot_be_written_is_a_failed_try(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a result that nobody understands")

    monkeypatch.setattr(webhooks, "job_object", fail)
    assert "ValueError" in await failing_once(gateway, settings, caplog, "http://receiver.test/")


async def test_it_is_given_up_after_the_last_try(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(webhooks, "MAX_ATTEMPTS", 3)
    with receiver("receiver.test", failures=100) as (url, got), caplog.at_level(logging.INFO):
        async with sending(settings, gateway):
            task_id = await ended(gateway, url)
            await until(lambda: f"{task_id}: webhook given up" in caplog.text, "it is given up")
            await until(lambda: _nothing_left(gateway), "nothing of it is left")
    assert len(got) == 3
    assert len({body for _, body in got}) == 1, "the same at every try"


async def test_a_webhook_whose_gateway_dies_at_every_try_is_given_up(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver("receiver.test") as (url, got), caplog.at_level(logging.INFO):
        task_id = await ended(gateway, url)
        values: dict[str, Any] = {"payload": "{}", "attempts": webhooks.MAX_ATTEMPTS}
        await gateway.redis.hset(f"yolo:webhook:{task_id}", mapping=values)
        async with sending(settings, gateway):
            await until(lambda: _nothing_left(gateway), "it is given up")
        assert f"{task_id}: webhook given up" in caplog.text
        assert got == []


async def test_without_redis_the_end_of_the_lease_brings_it_back(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "LEASE_SECONDS", 1)
    with receiver("receiver.test", failures=1) as (url, got):
        async with sending(settings, gateway) as sender:

            async def unavailable(*_: object) -> None:
                raise StoreUnavailable("Redis does not answer; try again later.")

            monkeypatch.setattr(sender._outbox, "retry", unavailable)
            await ended(gateway, url)
            await until(lambda: len(got) == 2, "the second try")
            await until(lambda: _nothing_left(gateway), "it is settled")
    assert not [record for record in caplog.records if record.exc_info], "no traceback"


async def test_a_private_address_is_not_even_connected_to(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = settings.model_copy(update={"webhook_allow_private": False})
    with receiver("inside.test") as (url, got):
        async with sending(guarded, gateway):
            task_id = await ended(gateway, url)
            await until(lambda: _nothing_left(gateway), "it is not tried again")
        assert f"{task_id}: webhook refused: inside.test resolves to 127.0.0.1" in caplog.text
        assert got == []


async def test_the_host_of_an_international_name(gateway: GatewayStore, settings: Settings) -> None:
    with receiver("bücher.test") as (url, got):
        async with sending(settings, gateway):
            await ended(gateway, url)
            await until(lambda: got, "it arrives")
        assert got[0][0]["host"].startswith("xn--bcher-kva.test:")
        assert json.loads(got[0][1])["type"] == "job.cancelled"


async def test_tls_is_by_the_name_of_the_host_and_an_unknown_certificate_is_a_failed_try(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if not have_openssl():
        missing = "openssl is not installed: no certificate for the test"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    authority = Authority(tmp_path)
    with receiver() as (url, got), TlsProxy(authority, urlsplit(url).port or 0) as proxy:
        secure = f"https://localhost:{proxy.port}/"
        line = await failing_once(gateway, settings, caplog, secure)
        assert "CERTIFICATE_VERIFY_FAILED" in line
        assert got == []
        async with sending(settings, gateway) as sender:
            sender._poster._tls.load_verify_locations(authority.ca)
            await ended(gateway, secure)
            await until(lambda: got, "it arrives")
            task_id = await ended(gateway, f"https://receiver.test:{proxy.port}/")
            with caplog.at_level(logging.INFO, logger="yolo_queue.webhooks"):
                await until(lambda: f"{task_id}: webhook ConnectError" in caplog.text, "it fails")
        assert "Hostname mismatch" in caplog.text
        assert len(got) == 1


# -- the end of a gateway --------------------------------------------------------------------------


async def test_a_stop_ends_the_sends_under_way_and_loses_none(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_post, "TIMEOUT_SECONDS", 60)
    async with SlowReceiver() as slow:
        async with sending(settings, gateway):
            sends = [await ended(gateway, slow.url(f"slow{n}.test")) for n in range(3)]
            await until(lambda: slow.open == 3, "they are under way")
        await until(lambda: slow.open == 0, "their connections are closed")
        ours = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not {name for name in ours if name.startswith("WebhookSender")}
        # The next gateway sends them, once their leases have ended.
        for task_id in sends:
            assert (await letter(gateway, task_id))[b"attempts"] == b"1"
            await gateway.redis.zadd("yolo:webhooks", {task_id: 0})
        slow.release()
        async with sending(settings, gateway):
            await until(lambda: slow.answered == 3, "they arrive")


async def _waits_to_be_tried_again(gateway: GatewayStore, task_id: str) -> bool:
    """Not taken at this moment, and due in less than a lease: after the first pause."""
    # In one transaction: between two reads the sender could take it, to write it down.
    async with gateway.redis.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zscore("yolo:webhooks", task_id)
        pipe.hget(f"yolo:webhook:{task_id}", "attempts")
        (seconds, microseconds), due, attempts = await pipe.execute()
    now = seconds + microseconds / 1e6
    return attempts == b"1" and due is not None and 0 < due / 1000 - now < 10


async def _is_written(gateway: GatewayStore, task_id: str) -> bool:
    return b"payload" in await letter(gateway, task_id)


async def _nothing_left(gateway: GatewayStore) -> bool:
    return not await gateway.redis.keys("yolo:webhook*")
