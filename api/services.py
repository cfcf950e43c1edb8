"""Makes the parts that all requests of a gateway share, runs its background tasks and closes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import Request

from api.api_keys import ApiKeys
from api.background import BackgroundTasks
from api.connection_limiter import ConnectionLimiter
from api.http_metrics import RequestMetrics
from api.notifications import Notifier
from api.rate_limit import RateLimiter
from api.stop_signals import on_stop_signal
from api.upkeep import keep_queue
from api.upload_budget import UploadBudget
from api.webhook_sender import WebhookSender
from shared.job.gateway_store import GatewayStore
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    store: GatewayStore
    background: BackgroundTasks
    notifier: Notifier
    webhooks: WebhookSender
    keys: ApiKeys
    rate_limiter: RateLimiter
    upload_budget: UploadBudget
    request_metrics: RequestMetrics

    @classmethod
    def create(cls, settings: Settings, limiter: ConnectionLimiter | None = None) -> Services:
        """Opens no connection and starts no task. Without a `limiter` there are no metrics of
        connections."""
        store, background = GatewayStore(settings), BackgroundTasks()
        notifier = Notifier(store)
        budget = UploadBudget(settings.max_gateway_upload_bytes, settings.max_client_upload_bytes)
        metrics = RequestMetrics(budget, notifier, background)
        if limiter is not None:
            metrics.show_connections(limiter)
        return cls(
            settings=settings,
            store=store,
            background=background,
            notifier=notifier,
            webhooks=WebhookSender(settings, store),
            keys=ApiKeys(settings.api_keys),
            rate_limiter=RateLimiter(settings),
            upload_budget=budget,
            request_metrics=metrics,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks. At the end, stop them and close the connections to Redis."""
        self.background.run("job changes", self.notifier.listen)
        self.background.run("queue positions", self.notifier.tell_positions)
        self.background.run("upkeep", partial(keep_queue, self.store))
        self.webhooks.start(self.background)
        try:
            with on_stop_signal(self.notifier.drain):
                yield
        finally:
            await self.background.stop()
            await self.webhooks.stop()
            await self.store.close()
            await self.rate_limiter.close()


def services_of(request: Request) -> Services:
    """The services of the gateway that this request came to.

    A plain function, since it takes 1 us. As a dependency of FastAPI it would take 10 us if it were
    async, and 120 us if not: FastAPI calls those in a thread.
    """
    services: Services = request.app.state.services
    return services
