"""One gateway's webhook sender on a real Redis, for tests with real receivers on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from api import webhook_client, webhook_sender
from api.background import BackgroundTasks
from api.webhook_sender import WebhookSender
from shared.job.gateway_store import GatewayStore
from shared.settings import Settings
from tests.support.jobs import job
from tests.support.receivers import SECRET


@asynccontextmanager
async def sending(
    gateway: GatewayStore,
    settings: Settings,
    *,
    timeout_seconds: float = webhook_client.TIMEOUT_SECONDS,
    allow_private: bool = True,
) -> AsyncIterator[WebhookSender]:
    """A running sender. Every host under `.test` is this machine, so that there are many hosts."""
    settings = settings.model_copy(
        update={"webhook_secret": SecretStr(SECRET), "webhook_allow_private": allow_private}
    )
    sender, background = WebhookSender(settings, gateway), BackgroundTasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", _resolve_locally(socket.getaddrinfo))
        patch.setattr(webhook_sender, "POLL_SECONDS", 0.05)
        patch.setattr(webhook_client, "TIMEOUT_SECONDS", timeout_seconds)
        sender.start(background)
        try:
            yield sender
        finally:
            await background.stop()
            await sender.stop()


def _resolve_locally(resolve: Callable[..., Any]) -> Callable[..., Any]:
    def resolve_locally(host: str | bytes, *args: Any, **more: Any) -> Any:
        name = host if isinstance(host, str) else host.decode()
        local = name == "localhost" or name.endswith(".test")
        return resolve("127.0.0.1" if local else host, *args, **more)

    return resolve_locally


async def ended(gateway: GatewayStore, url: str, owner: str = "a") -> str:
    """The id of a job that has ended and has a webhook."""
    record, _ = await gateway.accept(job(owner, webhook_url=url))
    await gateway.cancel(record)
    return record.task_id


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str, seconds: float = 30
) -> Any:
    """Poll until the condition returns something true, and return that."""
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


async def stored(gateway: GatewayStore, task_id: str) -> dict[bytes, bytes]:
    """The webhook of a job as it waits in Redis."""
    return dict(await gateway.redis.hgetall(f"yolo:webhook:{task_id}"))


async def is_written(gateway: GatewayStore, task_id: str) -> bool:
    return b"payload" in await stored(gateway, task_id)


async def waits_for_second_attempt(gateway: GatewayStore, task_id: str) -> bool:
    """Whether the first attempt has failed: nobody holds the webhook, and it is due soon."""
    # In one transaction: between two reads the sender could take it to write its payload.
    async with gateway.redis.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zscore("yolo:webhooks", task_id)
        pipe.hget(f"yolo:webhook:{task_id}", "attempts")
        (seconds, microseconds), due, attempts = await pipe.execute()
    now = seconds + microseconds / 1e6
    # A webhook that is held is due when its lease ends, later than after the first pause.
    return attempts == b"1" and due is not None and 0 < due / 1000 - now < 10


async def nothing_left(gateway: GatewayStore) -> bool:
    return not await gateway.redis.keys("yolo:webhook*")
