"""Owns telling others: posts a finished job to the URL its client gave, signed, until it arrives.

Notices wait in Redis (made in the same step as the job's end, see common.lua), so a gateway that
dies loses none; any gateway may send them. Signed by the Standard Webhooks scheme
(https://www.standardwebhooks.com).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook as Signer

from api.background import end_tasks
from api.job_view import job_object
from shared.errors import InvalidParameter, StoreUnavailable
from shared.job_intake import JobIntake
from shared.settings import Settings
from shared.webhook_outbox import Webhook, WebhookOutbox

log = logging.getLogger("yolo_queue.webhooks")

POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 28_800)
"""After each failed try; then it is given up."""


class Forbidden(Exception):
    """The URL leads to an address that webhooks may not reach."""


def check_url(url: str, settings: Settings) -> None:
    """Refuse a URL that could never be posted to. Raises `InvalidParameter`.

    The address is checked again at every sending, after resolution.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > 2000:
        raise InvalidParameter("webhook_url: must be an http or https URL.")
    if parts.username or parts.password:
        raise InvalidParameter("webhook_url: must not contain a user or password.")
    if not settings.webhook_secret.get_secret_value():
        raise InvalidParameter("webhook_url: this service has no WEBHOOK_SECRET to sign with.")


class WebhookSender:
    def __init__(self, settings: Settings, intake: JobIntake) -> None:
        self._settings = settings
        self._intake = intake
        self._outbox = WebhookOutbox(intake.redis, settings)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._settings.webhook_secret.get_secret_value():
            self._task = asyncio.create_task(self._run(), name="webhooks")

    async def stop(self) -> None:
        if self._task:
            await end_tasks([self._task])

    async def _run(self) -> None:
        while True:
            try:
                webhook = await self._outbox.take_due(lease_seconds=3 * TIMEOUT_SECONDS)
                if webhook:
                    await self._deliver(webhook)
                    continue
            except StoreUnavailable:
                pass
            except Exception:
                log.exception("a webhook met an unexpected error")
            await asyncio.sleep(POLL_SECONDS)

    async def _deliver(self, webhook: Webhook) -> None:
        payload = webhook.payload or await self._payload(webhook)
        if payload is None:
            await self._outbox.settle(webhook.task_id)
            return
        try:
            status = await self._post(webhook, payload)
            arrived, outcome = 200 <= status < 300, f"answered {status}"
        except Forbidden as error:
            log.warning("%s: webhook refused: %s", webhook.task_id, error)
            await self._outbox.settle(webhook.task_id)
            return
        except (httpx.HTTPError, OSError) as error:
            arrived, outcome = False, type(error).__name__
        if arrived or webhook.attempt > len(BACKOFF_SECONDS):
            log.info("%s: webhook %s", webhook.task_id, "delivered" if arrived else "given up")
            await self._outbox.settle(webhook.task_id)
            return
        pause = BACKOFF_SECONDS[webhook.attempt - 1]
        log.info("%s: webhook %s; again in %d s", webhook.task_id, outcome, pause)
        await self._outbox.postpone(webhook.task_id, pause)

    async def _payload(self, webhook: Webhook) -> bytes | None:
        """The finished job without its picture, kept for later tries."""
        found = await self._intake.read(webhook.task_id)
        if found is None:
            return None
        record, result = found
        job = job_object(record, json.loads(bytes(result)) if result else None)
        job.pop("image", None)
        notice = {"type": f"job.{job['status']}", "timestamp": job["finished_at"], "data": job}
        payload = json.dumps(notice).encode()
        await self._outbox.keep_payload(webhook.task_id, payload)
        return payload

    async def _post(self, webhook: Webhook, payload: bytes) -> int:
        """Post to the very address that was checked: a second look-up could give another one."""
        parts = urlsplit(webhook.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._resolve(host, port)
        netloc = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{netloc}:{port}", fragment="").geturl()
        moment = datetime.now(UTC)
        secret = self._settings.webhook_secret.get_secret_value()
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "User-Agent": "yolo-queue",
            "webhook-id": webhook.task_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Signer(secret).sign(webhook.task_id, moment, payload.decode()),
        }
        async with (
            httpx.AsyncClient(
                timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
            ) as client,
            client.stream(
                "POST", target, content=payload, headers=headers, extensions={"sni_hostname": host}
            ) as answer,
        ):
            return answer.status_code

    async def _resolve(self, host: str, port: int) -> str:
        """An address of `host`. Raises `Forbidden` if any of them is private or of this machine."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._settings.webhook_allow_private:
            for text in addresses:
                if not _is_public(text):
                    raise Forbidden(f"{host} resolves to {text} (WEBHOOK_ALLOW_PRIVATE is off)")
        return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Forms that carry an IPv4 address inside.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast
