"""Signs and posts a webhook as Standard Webhooks defines it (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook as Signer

from api.webhook_targets import Target
from shared.job.webhook_outbox import Webhook
from shared.settings import Settings

TIMEOUT_SECONDS = 10.0
"""For a whole attempt: DNS, connection, request and response. The timeouts of httpx apply to each
read, so a receiver that sends a byte now and then would never reach them."""


class WebhookClient:
    """One instance per gateway, for any number of posts at once."""

    def __init__(self, settings: Settings) -> None:
        self._signer = Signer(settings.webhook_secret.get_secret_value())
        self._allow_private = settings.webhook_allow_private
        # Made once, since loading the certificate authorities takes milliseconds.
        self._tls: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)

    async def post(self, webhook: Webhook, payload: bytes) -> int:
        """Post `payload`. Returns the status that the receiver answers.

        Raises `PrivateAddress`, `TimeoutError` after `TIMEOUT_SECONDS`, and whatever DNS, TLS and
        HTTP can fail with.
        """
        async with asyncio.timeout(TIMEOUT_SECONDS):
            target = Target.parse(webhook.url)
            # Connect to the address that was checked: another DNS query could return another one.
            address = await target.resolve(allow_private=self._allow_private)
            moment = datetime.now(UTC)
            headers = {
                "Host": target.netloc(target.host),
                "Content-Type": "application/json",
                "User-Agent": "yolo-queue",
                "webhook-id": webhook.task_id,
                "webhook-timestamp": str(int(moment.timestamp())),
                "webhook-signature": self._signer.sign(webhook.task_id, moment, payload.decode()),
            }
            async with (
                _closing_connections() as trace,
                # One for each post: a shared client would keep the receivers' cookies.
                httpx.AsyncClient(
                    timeout=None,  # noqa: S113 - the timeout above covers everything
                    follow_redirects=False,
                    trust_env=False,
                    verify=self._tls,
                ) as client,
                client.stream(
                    "POST",
                    target.url_at(address),
                    content=payload,
                    headers=headers,
                    extensions={"sni_hostname": target.host, "trace": trace},
                ) as answer,
            ):
                return answer.status_code


@asynccontextmanager
async def _closing_connections() -> AsyncIterator[Any]:
    """A value for the request extension `trace`. At the end it closes the connections it saw.

    Without it httpcore leaves a connection open whose TLS handshake was cancelled, until the
    receiver closes it.
    """
    opened: list[Any] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])

    try:
        yield trace
    finally:
        for stream in opened:
            await stream.aclose()
