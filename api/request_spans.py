"""Sets up the gateway's part of a trace: one span for each request about a job."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig

from shared import tracing
from shared.settings import Settings

_NOT_TRACED = ("/health", "/ready", "/metrics", "/queue", "/page", "/samples", "/docs", "/openapi")


def request_spans(settings: Settings) -> TelemetryConfig:
    """The telemetry settings for FastAPI, which makes the spans. Raises `StartupError`."""
    provider = tracing.start("yolo-queue-gateway", settings)
    if provider is None:
        return {"tracing": False, "metrics": False, "logs": False}
    return {
        "tracer_provider": provider,
        "metrics": False,  # GET /metrics has them
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _is_not_traced,
    }


def _is_not_traced(scope: MutableMapping[str, Any]) -> bool:
    """The page and probes send these requests all the time."""
    path: str = scope["path"]
    return path == "/" or path.startswith(_NOT_TRACED)
