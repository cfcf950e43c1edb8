"""Sends webhooks: posts a finished job to the URL its client gave, until it arrives.

Webhooks wait in Redis (shared/job/webhook_outbox.py), so a gateway that dies loses none, and any
gateway may send them. One task takes them, writes what they say while their jobs are still there,
and starts a task for each send.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import suppress

from api.background import BackgroundTasks, end_tasks
from api.job_view import job_object
from api.webhook_post import TIMEOUT_SECONDS, WebhookPoster
from api.webhook_targets import Forbidden, Target
from shared.errors import InvalidParameter, StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.job.webhook_outbox import ROOM, Webhook, WebhookOutbox
from shared.settings import Settings

log = logging.getLogger("yolo_queue.webhooks")

POLL_SECONDS = 1.0
LEASE_SECONDS = 3 * TIMEOUT_SECONDS
BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 28_800)
"""After each failed try; then it is given up."""
MAX_ATTEMPTS = len(BACKOFF_SECONDS) + 1

MAX_SENDS = 64
"""Of one gateway at once."""
MAX_SENDS_PER_OWNER = 16
"""So that one client with many slow receivers leaves room for the others."""
MAX_SENDS_PER_HOST = 8


def check_url(url: str, settings: Settings) -> None:
    """Refuse a URL that could never be posted to. Raises `InvalidParameter`.

    The address is checked again at every sending, after the look-up.
    """
    target = Target.parse(url)
    if not settings.webhook_allow_private:
        target.refuse_if_private()
    if not settings.webhook_secret.get_secret_value():
        raise InvalidParameter("webhook_url: this service has no WEBHOOK_SECRET to sign with.")


class WebhookSender:
    """Sends webhooks from `start` to `stop`, if there is a secret to sign them with.

    At-least-once: a gateway that dies after its receiver has answered leaves the webhook to be sent
    again, so a receiver has to know by `webhook-id` what it has had.
    """

    def __init__(self, settings: Settings, store: GatewayStore) -> None:
        self._settings = settings
        self._store = store
        self._outbox = WebhookOutbox(store.redis, settings)
        self._poster: WebhookPoster  # made by `start`
        self._sends: dict[asyncio.Task[None], Webhook] = {}
        self._freed: list[str] = []  # bounds of sends that ended, until Redis has been told
        self._send_ended = asyncio.Event()

    def start(self, background: BackgroundTasks) -> None:
        if self._settings.webhook_secret.get_secret_value():
            self._poster = WebhookPoster(self._settings)
            background.run("webhooks", self._run)

    async def stop(self) -> None:
        """Break off the sends under way, once nothing starts another one: stop `background` first.
        Their leases end, and another gateway takes them."""
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
            await self._give_up(webhook, "no gateway lived to say how the last try went")
        elif webhook.payload is None:
            await self._write(webhook)
        else:
            task = asyncio.create_task(self._send(webhook, webhook.payload))
            self._sends[task] = webhook
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        webhook = self._sends.pop(task)
        self._freed.extend(webhook.bounds)
        self._send_ended.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: webhook met an unexpected error", webhook.task_id, exc_info=error)

    async def _write(self, webhook: Webhook) -> None:
        try:
            found = await self._store.read(webhook.task_id)
            if found is None:
                log.warning("%s: webhook dropped: its job has expired", webhook.task_id)
                await self._outbox.settle(webhook)
                return
            record, result = found
            # Without the picture, which would make it a thousand times as long.
            job = job_object(record, json.loads(bytes(result)) if result else None)
            job.pop("image", None)
            notice = {"type": f"job.{job['status']}", "timestamp": job["finished_at"], "data": job}
            await self._outbox.write(webhook, json.dumps(notice).encode())
        except StoreUnavailable:
            raise
        except Exception as error:
            await self._fail(webhook, _in_a_line(error))

    async def _send(self, webhook: Webhook, payload: bytes) -> None:
        # When Redis does not answer, the end of the lease brings the webhook back.
        with suppress(StoreUnavailable):
            try:
                status = await self._poster.post(webhook, payload)
            except Forbidden as error:
                log.warning("%s: webhook refused: %s", webhook.task_id, error)
                await self._outbox.settle(webhook)
            except Exception as error:
                await self._fail(webhook, _in_a_line(error))
            else:
                if 200 <= status < 300:
                    log.info("%s: webhook delivered", webhook.task_id)
                    await self._outbox.settle(webhook)
                else:
                    await self._fail(webhook, f"answered {status}")

    async def _fail(self, webhook: Webhook, outcome: str) -> None:
        if webhook.attempt >= MAX_ATTEMPTS:
            await self._give_up(webhook, outcome)
            return
        pause = BACKOFF_SECONDS[webhook.attempt - 1]
        log.info("%s: webhook %s; again in %d s", webhook.task_id, outcome, pause)
        await self._outbox.retry(webhook, pause)

    async def _give_up(self, webhook: Webhook, outcome: str) -> None:
        log.warning("%s: webhook given up: %s", webhook.task_id, outcome)
        await self._outbox.settle(webhook)


def _most_sends(bound: str) -> int:
    if bound == ROOM:
        return MAX_SENDS
    return MAX_SENDS_PER_HOST if bound.startswith("host:") else MAX_SENDS_PER_OWNER


def _in_a_line(error: Exception) -> str:
    """For the log, where a receiver's words must not look like lines of ours."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
