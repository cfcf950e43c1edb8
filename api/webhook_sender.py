"""Sends webhooks: posts each finished job to the URL that its client gave, until it arrives.

Webhooks wait in Redis (shared/job/webhook_outbox.py), so any gateway can send them and none is lost
if a gateway dies. One background task takes them and writes their payloads while their jobs still
exist. Each send is a task of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import suppress

from api.background import BackgroundTasks, end_tasks
from api.job_schema import job_object
from api.webhook_client import TIMEOUT_SECONDS, WebhookClient
from api.webhook_targets import PrivateAddress, Target
from shared.errors import InvalidParameter, StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.job.webhook_outbox import ROOM, Webhook, WebhookOutbox
from shared.settings import Settings

log = logging.getLogger("yolo_queue.webhooks")

POLL_SECONDS = 1.0
LEASE_SECONDS = 3 * TIMEOUT_SECONDS
BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 28_800)
"""The pause after each failed attempt but the last one."""
MAX_ATTEMPTS = len(BACKOFF_SECONDS) + 1

MAX_SENDS = 64
"""At once, for one gateway."""
MAX_SENDS_PER_OWNER = 16
"""So that an owner with many slow receivers leaves room for the others."""
MAX_SENDS_PER_HOST = 8


def check_url(url: str, settings: Settings) -> None:
    """Refuse a URL that no webhook can be sent to. Raises `InvalidParameter`.

    Each attempt checks the URL again, and the addresses of its host.
    """
    target = Target.parse(url)
    if not settings.webhook_allow_private:
        target.refuse_if_private()
    if not settings.webhook_secret.get_secret_value():
        raise InvalidParameter(
            "webhook_url: this service sends no webhooks (WEBHOOK_SECRET is not set)."
        )


class WebhookSender:
    """Sends webhooks from `start` to `stop`, if WEBHOOK_SECRET is set.

    At least once: if a gateway dies just after a receiver has answered, the webhook is sent again.
    A receiver can recognise it by its `webhook-id`.
    """

    def __init__(self, settings: Settings, store: GatewayStore) -> None:
        self._settings = settings
        self._store = store
        self._outbox = WebhookOutbox(store.redis, settings)
        self._client: WebhookClient  # made by `start`
        self._sends: dict[asyncio.Task[None], Webhook] = {}
        self._freed: list[str] = []  # the bounds of ended sends, until Redis knows
        self._send_ended = asyncio.Event()

    def start(self, background: BackgroundTasks) -> None:
        if self._settings.webhook_secret.get_secret_value():
            self._client = WebhookClient(self._settings)
            background.run("webhooks", self._run)

    async def stop(self) -> None:
        """Cancel the sends under way. Stop `background` first, or it starts new ones. When their
        leases have ended, another gateway takes these webhooks."""
        await end_tasks(list(self._sends))

    async def _run(self) -> None:
        while True:
            self._send_ended.clear()
            try:
                while webhook := await self._take():
                    await self._handle(webhook)
            except StoreUnavailable:
                pass
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._send_ended.wait()

    async def _take(self) -> Webhook | None:
        under_way = Counter(bound for webhook in self._sends.values() for bound in webhook.bounds)
        full = [bound for bound, sends in under_way.items() if sends >= _most_sends(bound)]
        freed = tuple(self._freed)
        webhook = await self._outbox.take(LEASE_SECONDS, full=full, freed=freed)
        del self._freed[: len(freed)]
        return webhook

    async def _handle(self, webhook: Webhook) -> None:
        if webhook.attempt > MAX_ATTEMPTS:
            await self._give_up(webhook, "the gateway died during the last attempt")
        elif webhook.payload is None:
            await self._write_payload(webhook)
        else:
            task = asyncio.create_task(self._send(webhook, webhook.payload))
            self._sends[task] = webhook
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        webhook = self._sends.pop(task)
        self._freed.extend(webhook.bounds)
        self._send_ended.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: unexpected error in a webhook", webhook.task_id, exc_info=error)

    async def _write_payload(self, webhook: Webhook) -> None:
        try:
            found = await self._store.read(webhook.task_id)
            if found is None:
                log.warning("%s: webhook dropped: the job has expired", webhook.task_id)
                await self._outbox.settle(webhook)
                return
            record, result = found
            # Without the picture, which would make the payload a thousand times as large.
            job = job_object(record, json.loads(bytes(result)) if result else None)
            job.pop("image", None)
            event = {"type": f"job.{job['status']}", "timestamp": job["finished_at"], "data": job}
            await self._outbox.write(webhook, json.dumps(event).encode())
        except StoreUnavailable:
            raise
        except Exception as error:
            await self._fail(webhook, _one_line(error))

    async def _send(self, webhook: Webhook, payload: bytes) -> None:
        # If Redis does not answer, the webhook comes back when its lease has ended.
        with suppress(StoreUnavailable):
            try:
                status = await self._client.post(webhook, payload)
            except PrivateAddress as error:
                log.warning("%s: webhook not sent: %s", webhook.task_id, error)
                await self._outbox.settle(webhook)
            except Exception as error:
                await self._fail(webhook, _one_line(error))
            else:
                if 200 <= status < 300:
                    log.info("%s: webhook delivered", webhook.task_id)
                    await self._outbox.settle(webhook)
                else:
                    await self._fail(webhook, f"the receiver answered {status}")

    async def _fail(self, webhook: Webhook, reason: str) -> None:
        if webhook.attempt >= MAX_ATTEMPTS:
            await self._give_up(webhook, reason)
            return
        pause = BACKOFF_SECONDS[webhook.attempt - 1]
        log.info("%s: webhook failed: %s; next attempt in %d s", webhook.task_id, reason, pause)
        await self._outbox.retry(webhook, pause)

    async def _give_up(self, webhook: Webhook, reason: str) -> None:
        log.warning("%s: webhook given up: %s", webhook.task_id, reason)
        await self._outbox.settle(webhook)


def _most_sends(bound: str) -> int:
    if bound == ROOM:
        return MAX_SENDS
    return MAX_SENDS_PER_HOST if bound.startswith("host:") else MAX_SENDS_PER_OWNER


def _one_line(error: Exception) -> str:
    """For the log: no line breaks, with which a receiver could forge log lines."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
