"""How webhooks wait in Redis: every step is one script on the server's clock."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis.asyncio

from shared.job.gateway_store import GatewayStore
from shared.job.webhook_outbox import Webhook, WebhookOutbox
from shared.settings import Settings
from tests.support.jobs import job

pytestmark = pytest.mark.anyio

URL = "http://receiver.example/hook"
LEASE_SECONDS = 60.0


@pytest.fixture
def outbox(gateway: GatewayStore, settings: Settings) -> WebhookOutbox:
    return WebhookOutbox(gateway.redis, settings)


async def ended(gateway: GatewayStore, url: str = URL, owner: str = "a") -> str:
    """A job that has ended and whose webhook is to be written."""
    record, _ = await gateway.accept(job(owner, webhook_url=url))
    await gateway.cancel(record)
    return record.task_id


async def written(
    outbox: WebhookOutbox, gateway: GatewayStore, url: str = URL, owner: str = "a"
) -> str:
    """A webhook that is due and has its payload."""
    task_id = await ended(gateway, url, owner)
    webhook = await taken(outbox)
    assert webhook.task_id == task_id
    await outbox.write(webhook, b"payload")
    return task_id


async def taken(outbox: WebhookOutbox, lease_seconds: float = LEASE_SECONDS) -> Webhook:
    """The next webhook, once one is due."""
    async with asyncio.timeout(20):
        while True:
            if webhook := await outbox.take(lease_seconds):
                return webhook
            await asyncio.sleep(0.01)


async def due_in_ms(client: redis.asyncio.Redis, task_id: str) -> float:
    due = await client.zscore("yolo:webhooks", task_id)
    assert due is not None
    seconds, microseconds = await client.time()
    return float(due) - seconds * 1000 - microseconds / 1000


async def keys(client: redis.asyncio.Redis) -> set[bytes]:
    return set(await client.keys("yolo:webhook*"))


async def test_from_the_end_of_a_job_to_delivery(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    assert await outbox.take(LEASE_SECONDS) is None
    task_id = await ended(gateway)
    first = await taken(outbox)
    assert first == Webhook(task_id, URL, "receiver.example", "a", 1, None)
    assert await outbox.take(LEASE_SECONDS) is None, "it is leased"
    await outbox.write(first, b"payload")
    second = await taken(outbox)
    assert (second.task_id, second.attempt, second.payload) == (task_id, 1, b"payload")
    assert await gateway.redis.ttl(f"yolo:webhook:{task_id}") > 86_400
    await outbox.settle(second)
    assert await keys(gateway.redis) == set()


async def test_a_lease_that_ends_gives_the_webhook_back_and_the_attempt_counts(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    task_id = await written(outbox, gateway)
    lapsed = await taken(outbox, lease_seconds=0.01)
    again = await taken(outbox)
    assert (again.task_id, lapsed.attempt, again.attempt) == (task_id, 1, 2)


async def test_a_failed_attempt_waits_for_its_pause_by_the_clock_of_redis(
    gateway: GatewayStore, outbox: WebhookOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own clock is an hour behind."""
    task_id = await written(outbox, gateway)
    webhook = await taken(outbox)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - 3600)
    await outbox.retry(webhook, 600)
    assert 500_000 < await due_in_ms(gateway.redis, task_id) <= 600_000


async def test_who_comes_back_after_the_lease_changes_nothing(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    task_id = await written(outbox, gateway)
    lapsed = await taken(outbox, lease_seconds=0.01)
    current = await taken(outbox)
    await outbox.retry(lapsed, 3600)
    await outbox.write(lapsed, b"other payload")
    assert await due_in_ms(gateway.redis, task_id) <= LEASE_SECONDS * 1000
    assert await gateway.redis.hget(f"yolo:webhook:{task_id}", "payload") == b"payload"
    await outbox.settle(current)
    await outbox.retry(lapsed, 3600)
    await outbox.write(lapsed, b"other payload")
    assert await keys(gateway.redis) == set(), "what is settled does not come back to life"


async def test_a_webhook_that_outlived_its_time_leaves_nothing(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    gone = await ended(gateway)
    await gateway.redis.unlink(f"yolo:webhook:{gone}")
    task_id = await ended(gateway, "http://other.example/")
    assert (await taken(outbox)).task_id == task_id
    assert await gateway.redis.zscore("yolo:webhooks", gone) is None


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Receiver.Example/hook", "receiver.example"),
        ("https://receiver.example:8443?x", "receiver.example"),
        ("http://[2001:db8::1]:80/", "[2001:db8::1]"),
        ("http://[2001:db8::1]", "[2001:db8::1]"),
        ("http://[::1", "[:"),  # nonsense from an earlier version: any name will do
        ("nonsense", ""),
    ],
)
async def test_the_host_of_a_url(
    gateway: GatewayStore, outbox: WebhookOutbox, url: str, host: str
) -> None:
    await ended(gateway, url)
    assert (await taken(outbox)).host == host


@pytest.mark.parametrize("bound", ["room", "host:receiver.example", "owner:a"])
async def test_what_is_at_its_bound_costs_no_attempt_and_waits_for_the_end_of_a_send(
    gateway: GatewayStore, outbox: WebhookOutbox, bound: str
) -> None:
    tasks = {await ended(gateway) for _ in range(3)}
    for webhook in [await taken(outbox) for _ in tasks]:
        await outbox.write(webhook, b"payload")
    assert await outbox.take(LEASE_SECONDS, full=[bound]) is None
    for _ in range(3):
        assert await outbox.take(LEASE_SECONDS) is None, "only one for each send that has ended"
        sent = await outbox.take(LEASE_SECONDS, freed=[bound])
        assert sent is not None
        assert sent.attempt == 1
        tasks.remove(sent.task_id)
        await outbox.settle(sent)
    assert await keys(gateway.redis) == set()


async def test_what_waits_at_a_bound_is_due_by_itself_if_nobody_ends_a_send_there(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    """Its gateway has died."""
    task_id = await written(outbox, gateway)
    assert await outbox.take(LEASE_SECONDS, full=["owner:a"]) is None
    assert 20_000 < await due_in_ms(gateway.redis, task_id) <= 90_000
    await gateway.redis.zadd("yolo:webhooks", {task_id: 0})
    assert await outbox.take(LEASE_SECONDS, full=["host:receiver.example"]) is None
    await gateway.redis.zadd("yolo:webhooks", {task_id: 0})
    webhook = await taken(outbox)
    # The lists it was in meanwhile do not bring it back.
    assert await outbox.take(LEASE_SECONDS, freed=["owner:a", "host:receiver.example"]) is None
    assert (webhook.task_id, webhook.attempt) == (task_id, 1)
    assert await due_in_ms(gateway.redis, task_id) > 20_000


async def test_a_webhook_that_is_settled_while_it_waits_at_a_bound_is_gone(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    """The answer to its last try came after its lease."""
    await written(outbox, gateway)
    lapsed = await taken(outbox, lease_seconds=0)
    assert await outbox.take(LEASE_SECONDS, full=["owner:a"]) is None
    await outbox.settle(lapsed)
    assert await outbox.take(LEASE_SECONDS, freed=["owner:a"]) is None
    assert await keys(gateway.redis) == set()


async def test_what_is_not_written_yet_waits_at_no_bound(
    gateway: GatewayStore, outbox: WebhookOutbox
) -> None:
    """The payload can be made only while the job is there."""
    task_id = await ended(gateway)
    full = ["room", "host:receiver.example", "owner:a"]
    webhook = await outbox.take(LEASE_SECONDS, full=full)
    assert webhook is not None
    assert (webhook.task_id, webhook.payload) == (task_id, None)


async def test_thousands_for_a_host_at_its_bound_hold_up_no_other_and_are_left_alone(
    gateway: GatewayStore, outbox: WebhookOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, number = gateway.redis, 3000
    pipe = client.pipeline(transaction=False)
    for n in range(number):
        webhook = {"url": "http://dead.example/", "owner": f"client {n}", "payload": "{}"}
        pipe.hset(f"yolo:webhook:{n}", mapping={"attempts": 0, **webhook})
        pipe.zadd("yolo:webhooks", {str(n): n})
    await pipe.execute()
    other = await ended(gateway, "http://live.example/")
    looks: list[str] = []
    run = outbox._lua.run

    async def counted(name: str, **arguments: Any) -> Any:
        looks.append(name)
        return await run(name, **arguments)

    monkeypatch.setattr(outbox._lua, "run", counted)
    webhook = await outbox.take(LEASE_SECONDS, full=["host:dead.example"])
    assert webhook is not None
    assert webhook.task_id == other
    assert len(looks) == 1 + number // 256, "many at a look"

    waits = [await due_in_ms(client, str(n)) for n in range(0, number, 100)]
    assert min(waits) > 10_000
    assert max(waits) - min(waits) > 20_000, "not all at the same moment"
    webhook = await outbox.take(LEASE_SECONDS, freed=["host:dead.example"])
    assert webhook is not None
    assert webhook.task_id == "0", "the one that has waited the longest"
