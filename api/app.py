"""Makes the gateway's ASGI application: `uvicorn --factory api.app:create_app`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import docs, problems
from api.connection_limiter import ConnectionLimiter
from api.http_metrics import CountRequests
from api.request_spans import request_spans
from api.routes import events, health, metrics, models, page, predict, queue, result
from api.security_headers import SecurityHeaders
from api.services import Services
from shared import tracing
from shared.settings import Settings

log = logging.getLogger("yolo_queue.api")


def create_app(
    settings: Settings | None = None, limiter: ConnectionLimiter | None = None
) -> FastAPI:
    """The gateway with these settings, or with those of the environment. `limiter`: what limits its
    connections, to be shown in the metrics."""
    settings = settings or Settings()
    services = Services.create(settings, limiter)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not services.keys:
            log.warning(
                "API_KEYS is not set: anyone who can reach %s:%d may use this service",
                settings.host,
                settings.port,
            )
        try:
            async with services.running():
                yield
        finally:
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
    app.state.services = services
    for module in (predict, result, events, queue, models, health, metrics, page):
        app.include_router(module.router)
    page.install(app)
    docs.install(app)
    problems.install(app)
    app.add_middleware(SecurityHeaders)
    if settings.cors_origins:
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
    app.add_middleware(CountRequests, metrics=services.request_metrics)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app
