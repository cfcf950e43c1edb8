"""Which webhooks are sent: with slow receivers, with shares of hosts and clients, at a stop."""

from __future__ import annotations

import asyncio
import json

import pytest

from api import webhook_sender
from api.webhook_sender import MAX_SENDS, MAX_SENDS_PER_HOST, MAX_SENDS_PER_OWNER
from shared.job.gateway_store import GatewayStore
from shared.job.keys import Keys
from shared.settings import Settings
from tests.support.receivers import SlowReceiver, receiver
from tests.support.webhook_sending import ended, is_written, nothing_left, sending, stored, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("drip_seconds", [0.2, 0], ids=["dripping", "silent"])
async def test_a_slow_receiver_does_not_delay_others(
    gateway: GatewayStore, settings: Settings, drip_seconds: float
) -> None:
    async with (
        SlowReceiver(drip_seconds=drip_seconds) as slow,
        sending(gateway, settings, timeout_seconds=60),
    ):
        await ended(gateway, slow.url("slow.test"))
        await until(lambda: slow.open == 1, "the slow receiver has a webhook")
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url)
            await until(lambda: got, "the other receiver has its webhook")
            assert slow.open == 1, "while the slow one still holds its own"


@pytest.mark.parametrize(
    ("share", "host", "owner"),
    [
        pytest.param(MAX_SENDS_PER_HOST, "slow.test", "client {}", id="host"),
        pytest.param(MAX_SENDS_PER_OWNER, "slow{}.test", "greedy", id="client"),
    ],
)
async def test_one_host_or_client_gets_only_its_share_of_the_sends(
    gateway: GatewayStore, settings: Settings, share: int, host: str, owner: str
) -> None:
    number = 2 * MAX_SENDS
    async with SlowReceiver() as slow, sending(gateway, settings, timeout_seconds=60):
        for n in range(number):
            await ended(gateway, slow.url(host.format(n)), owner=owner.format(n))
        await until(lambda: slow.open == share, "it has its share")
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url, owner="other")
            await until(lambda: got, "another host and client have their webhook")
        assert slow.most_open == share
        slow.release()
        await until(lambda: slow.answered == number, "all of them arrive in the end")
        assert slow.most_open == share


async def test_thousands_for_a_dead_host_do_not_delay_others(
    gateway: GatewayStore, settings: Settings
) -> None:
    async with SlowReceiver() as slow:
        pipe = gateway.redis.pipeline(transaction=False)
        for n in range(5000):
            values = {"url": slow.url("dead.test"), "owner": f"client {n}", "attempts": 0}
            pipe.hset(f"yolo:webhook:dead-{n}", mapping={**values, "payload": "{}"})
            pipe.zadd("yolo:webhooks", {f"dead-{n}": n})
        await pipe.execute()
        with receiver("healthy.test") as (url, got):
            await ended(gateway, url)
            async with sending(gateway, settings, timeout_seconds=60):
                await until(lambda: got, "it is sent although it is the last one")
                await until(lambda: slow.open == MAX_SENDS_PER_HOST, "the dead host has its share")
                assert slow.most_open == MAX_SENDS_PER_HOST


async def test_payloads_are_written_while_their_jobs_exist(
    gateway: GatewayStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of webhooks that have to wait, for their host's share or for any free send."""
    monkeypatch.setattr(webhook_sender, "MAX_SENDS", MAX_SENDS_PER_HOST)
    number = MAX_SENDS_PER_HOST + 2
    async with SlowReceiver() as slow, sending(gateway, settings, timeout_seconds=60):
        tasks = [await ended(gateway, slow.url("slow.test")) for _ in range(number - 1)]
        tasks.append(await ended(gateway, slow.url("other.test")))
        for task_id in tasks:
            await until(lambda task_id=task_id: is_written(gateway, task_id), "it is written")
        await gateway.redis.unlink(*(Keys("yolo").job(task_id) for task_id in tasks))
        assert slow.answered == 0
        slow.release()
        await until(lambda: slow.answered == number, "all of them arrive")


async def test_a_private_address_is_not_even_connected_to(
    gateway: GatewayStore, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver("inside.test") as (url, got):
        async with sending(gateway, settings, allow_private=False):
            task_id = await ended(gateway, url)
            await until(lambda: nothing_left(gateway), "there is no second attempt")
        assert f"{task_id}: webhook not sent: inside.test resolves to 127.0.0.1" in caplog.text
        assert got == []


async def test_the_host_of_an_international_name(gateway: GatewayStore, settings: Settings) -> None:
    with receiver("bücher.test") as (url, got):
        async with sending(gateway, settings):
            await ended(gateway, url)
            await until(lambda: got, "it arrives")
        assert got[0][0]["host"].startswith("xn--bcher-kva.test:")
        assert json.loads(got[0][1])["type"] == "job.cancelled"


async def test_a_stop_ends_the_sends_under_way_and_loses_none(
    gateway: GatewayStore, settings: Settings
) -> None:
    async with SlowReceiver() as slow:
        async with sending(gateway, settings, timeout_seconds=60):
            tasks = [await ended(gateway, slow.url(f"slow{n}.test")) for n in range(3)]
            await until(lambda: slow.open == 3, "they are under way")
        await until(lambda: slow.open == 0, "their connections are closed")
        ours = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not {name for name in ours if name.startswith("WebhookSender")}
        # Another gateway sends them, once their leases have ended.
        for task_id in tasks:
            assert (await stored(gateway, task_id))[b"attempts"] == b"1"
            await gateway.redis.zadd("yolo:webhooks", {task_id: 0})
        slow.release()
        async with sending(gateway, settings, timeout_seconds=60):
            await until(lambda: slow.answered == 3, "they arrive")
