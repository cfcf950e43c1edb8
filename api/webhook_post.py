"""Posts one webhook, signed by the Standard Webhooks scheme (https://www.standardwebhooks.com)."""

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
"""For all of a try: look-up, connection, request and answer. httpx' own timeouts are for each read,
so a receiver that sends a byte now and then would never meet them."""


class WebhookPoster:
    """One instance a gateway; any number of posts at once."""

    def __init__(self, settings: Settings) -> None:
        self._signer = Signer(settings.webhook_secret.get_secret_value())
        self._allow_private = settings.webhook_allow_private
        # Loading the authorities takes milliseconds, which need not be spent on each post.
        self._tls: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)

    async def post(self, webhook: Webhook, payload: bytes) -> int:
        """The status of the receiver's answer.

        Raises `Forbidden` if its address is private, `TimeoutError` after `TIMEOUT_SECONDS`, and
        whatever else look-up, TLS and HTTP can fail with.
        """
        async with asyncio.timeout(TIMEOUT_SECONDS):
            target = Target.parse(webhook.url)
            # Connect to the very address that was checked: a second look-up could give another.
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
                # A client for each: one that is shared would keep the receivers' cookies.
                httpx.AsyncClient(
                    timeout=None,  # noqa: S113 - the deadline above is for all of it
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
    """A request's extension `trace`; at the end, the connections that it saw are closed.

    httpcore leaves a connection open whose TLS handshake is cancelled, for as long as its receiver
    likes.
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
