"""Owns the making of the gateway: `uvicorn --factory api.app:create_app`. No work at import."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import docs, problems
from api.auth import KeyRing
from api.background import BackgroundTasks
from api.draining import on_stop_signal
from api.http_metrics import CountRequests, RequestMetrics
from api.notifications import Notifier
from api.rate_limit import RateLimiter
from api.request_spans import request_spans
from api.routes import events, health, metrics, model, page, predict, queue, result
from api.security_headers import SecurityHeaders
from api.upkeep import keep_queue
from api.upload_budget import UploadBudget
from api.webhooks import WebhookSender
from shared import tracing
from shared.job.gateway_store import GatewayStore
from shared.settings import Settings

log = logging.getLogger("yolo_queue.api")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The gateway of one service; settings come from the environment unless given."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not settings.api_keys:
            log.warning(
                "API_KEYS is not set: everyone who reaches %s:%d may use this service",
                settings.host,
                settings.port,
            )
        background, notifier = app.state.background, app.state.notifier
        background.run("job changes", notifier.listen)
        background.run("queue positions", notifier.tell_positions)
        background.run("upkeep", partial(keep_queue, app.state.store))
        app.state.webhooks.start(background)
        try:
            with on_stop_signal(app.state.notifier.drain):
                yield
        finally:
            await background.stop()
            await app.state.webhooks.stop()
            await app.state.store.close()
            await app.state.rate_limiter.close()
            tracing.stop()

    app = FastAPI(
        title="yolo-queue",
        version="0.1.0",
        description=docs.DESCRIPTION,
        license_info={"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=request_spans(settings),
    )
    app.state.settings = settings
    app.state.store = GatewayStore(settings)
    app.state.background = BackgroundTasks()
    app.state.notifier = Notifier(app.state.store)
    app.state.webhooks = WebhookSender(settings, app.state.store)
    app.state.keys = KeyRing(settings.api_keys)
    app.state.rate_limiter = RateLimiter(settings)
    app.state.upload_budget = UploadBudget(
        settings.max_gateway_upload_bytes, settings.max_client_upload_bytes
    )
    app.state.request_metrics = RequestMetrics(
        app.state.upload_budget, app.state.notifier, app.state.background
    )
    for module in (predict, result, events, queue, model, health, metrics, page):
        app.include_router(module.router)
    page.install(app)
    docs.install(app)
    problems.install(app)
    app.add_middleware(SecurityHeaders)
    if settings.cors_origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "Authorization",
                "X-API-Key",
                "Idempotency-Key",
                "Prefer",
                "Content-Type",
            ],
            expose_headers=["Location", "Retry-After", "Idempotency-Replayed"],
        )
    app.add_middleware(CountRequests, metrics=app.state.request_metrics)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app
