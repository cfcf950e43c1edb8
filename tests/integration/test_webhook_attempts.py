"""Attempts to send a webhook that fail, in every way, and what follows."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api import webhook_client, webhook_sender
from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.settings import Settings
from tests.support.machine import missing
from tests.support.receivers import SlowReceiver, receiver
from tests.support.tls import Authority, TlsProxy, have_openssl
from tests.support.webhook_sending import (
    ended,
    nothing_left,
    sending,
    stored,
    until,
    waits_for_second_attempt,
)

pytestmark = pytest.mark.anyio


async def first_failure(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, url: str
) -> str:
    """The line in the log about the first attempt, which has to fail without a traceback."""
    with caplog.at_level(logging.INFO, logger="yolo_queue.webhooks"):
        async with sending(gateway, settings):
            task_id = await ended(gateway, url)
            await until(lambda: waits_for_second_attempt(gateway, task_id), "the attempt fails")
    assert (await stored(gateway, task_id))[b"attempts"] == b"1"
    lines = [record for record in caplog.records if task_id in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].getMessage().endswith("; next attempt in 5 s")
    assert not [record for record in caplog.records if record.exc_info], "no traceback"
    return lines[0].getMessage()


# -- the deadline ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "drip_seconds"), [("http", 0.05), ("https", 0)])
async def test_an_attempt_has_one_deadline_for_all_of_it(
    gateway: GatewayStore, settings: Settings, scheme: str, drip_seconds: float
) -> None:
    """A byte of the answer comes every 50 ms, so no read takes as long; or TLS never begins."""
    async with (
        SlowReceiver(drip_seconds=drip_seconds) as slow,
        sending(gateway, settings, timeout_seconds=0.5),
    ):
        task_id = await ended(gateway, slow.url().replace("http", scheme))
        await until(lambda: slow.most_open == 1 and slow.open == 0, "the connection is closed")
        await until(lambda: waits_for_second_attempt(gateway, task_id), "the attempt fails")
        assert (await stored(gateway, task_id))[b"attempts"] == b"1"


async def test_a_dns_query_that_hangs_is_within_the_deadline(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def hang(host: str | bytes, *args: Any, **more: Any) -> Any:
        if host in (b"hanging.example", "hanging.example"):
            begun.set()
            released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "too late")
        return resolve(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with sending(gateway, settings, timeout_seconds=0.5):
            task_id = await ended(gateway, "http://hanging.example/")
            await until(lambda: waits_for_second_attempt(gateway, task_id), "the attempt fails")
            assert begun.is_set()
    finally:
        released.set()


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://a..b/", "http://[::1", "http://receiver.test:99999/", f"http://{'a' * 73}.test/"],
)
async def test_a_url_of_an_earlier_version_that_cannot_be_posted_to(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    assert "webhook_url: " in await first_failure(gateway, settings, caplog, url)


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
async def test_every_error_is_a_failed_attempt(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    async def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(webhook_client.WebhookClient, "post", fail)
    line = await first_failure(gateway, settings, caplog, "http://receiver.test/")
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
        await first_failure(gateway, settings, caplog, f"http://mail.test:{port}/")
        caplog.clear()
        await first_failure(gateway, settings, caplog, f"https://mail.test:{port}/")


async def test_a_payload_that_cannot_be_written_is_a_failed_attempt(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a result that nobody understands")

    monkeypatch.setattr(webhook_sender, "job_object", fail)
    assert "ValueError" in await first_failure(gateway, settings, caplog, "http://receiver.test/")


async def test_tls_certificates_are_checked_against_the_host_name(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if not have_openssl():
        missing("openssl is not installed: no certificate for the test")
    authority = Authority(tmp_path)
    with receiver() as (url, got), TlsProxy(authority, urlsplit(url).port or 0) as proxy:
        secure = f"https://localhost:{proxy.port}/"
        line = await first_failure(gateway, settings, caplog, secure)
        assert "CERTIFICATE_VERIFY_FAILED" in line
        assert got == []
        async with sending(gateway, settings) as sender:
            sender._client._tls.load_verify_locations(authority.ca)
            await ended(gateway, secure)
            await until(lambda: got, "it arrives")
            task_id = await ended(gateway, f"https://receiver.test:{proxy.port}/")
            failed = f"{task_id}: webhook failed: ConnectError"
            with caplog.at_level(logging.INFO, logger="yolo_queue.webhooks"):
                await until(lambda: failed in caplog.text, "it fails")
        assert "Hostname mismatch" in caplog.text
        assert len(got) == 1


# -- after the last attempt, or without Redis ------------------------------------------------------


async def test_it_is_given_up_after_the_last_attempt(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_sender, "BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(webhook_sender, "MAX_ATTEMPTS", 3)
    with receiver("receiver.test", failures=100) as (url, got), caplog.at_level(logging.INFO):
        async with sending(gateway, settings):
            task_id = await ended(gateway, url)
            await until(lambda: f"{task_id}: webhook given up" in caplog.text, "it is given up")
            await until(lambda: nothing_left(gateway), "nothing of it is left")
    assert len(got) == 3
    assert len({body for _, body in got}) == 1, "the same in every attempt"


async def test_a_webhook_whose_gateway_dies_in_every_attempt_is_given_up(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver("receiver.test") as (url, got), caplog.at_level(logging.INFO):
        task_id = await ended(gateway, url)
        values: dict[str, Any] = {"payload": "{}", "attempts": webhook_sender.MAX_ATTEMPTS}
        await gateway.redis.hset(f"yolo:webhook:{task_id}", mapping=values)
        async with sending(gateway, settings):
            await until(lambda: nothing_left(gateway), "it is given up")
        assert f"{task_id}: webhook given up" in caplog.text
        assert got == []


async def test_without_redis_the_end_of_the_lease_brings_it_back(
    gateway: GatewayStore,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_sender, "LEASE_SECONDS", 1)
    with receiver("receiver.test", failures=1) as (url, got):
        async with sending(gateway, settings) as sender:

            async def unavailable(*_: object) -> None:
                raise StoreUnavailable("Redis does not answer; try again later.")

            monkeypatch.setattr(sender._outbox, "retry", unavailable)
            await ended(gateway, url)
            await until(lambda: len(got) == 2, "the second attempt")
            await until(lambda: nothing_left(gateway), "it is settled")
    assert not [record for record in caplog.records if record.exc_info], "no traceback"
