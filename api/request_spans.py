"""Owns the gateway's part of a trace: a span for each request that is about jobs."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig

from shared import tracing
from shared.settings import Settings

_NOT_TRACED = ("/health", "/ready", "/metrics", "/queue", "/page", "/samples", "/docs", "/openapi")


def request_spans(settings: Settings) -> TelemetryConfig:
    """What to hand to FastAPI, which makes the spans itself. Raises `StartupError`."""
    provider = tracing.start("yolo-queue-gateway", settings)
    if provider is None:
        return {"tracing": False, "metrics": False, "logs": False}
    return {
        "tracer_provider": provider,
        "metrics": False,  # Prometheus has them
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _is_not_traced,
    }


def _is_not_traced(scope: MutableMapping[str, Any]) -> bool:
    """What browsers and probes ask for all the time."""
    path: str = scope["path"]
    return path == "/" or path.startswith(_NOT_TRACED)
