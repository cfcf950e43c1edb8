"""Owns `GET /metrics`: the service in Prometheus' text format, read from Redis at each scrape.

Counters live in Redis, so they are the same from every gateway and survive restarts.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.problems import responses
from shared import errors
from shared.job_intake import QueueState

router = APIRouter(tags=["service"])


class QueueCollector(Collector):
    def __init__(self, state: QueueState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state, stats = self._state, self._state.stats
        gauges = {
            "queue_depth": ("Jobs waiting.", state.depth),
            "queue_oldest_age_seconds": (
                "Age of the oldest waiting job.",
                state.oldest_age_seconds,
            ),
            "queue_bytes": ("Bytes of images waiting.", stats.get("queued_bytes", 0)),
            "jobs_in_flight": ("Jobs being worked on.", state.in_flight),
            "worker_processes_ready": ("Pool processes able to take work.", state.ready_slots),
            "workers": ("Workers that report.", len(state.workers)),
            "dead_letters": ("Dead letters kept.", state.dead_letters),
            "drain_rate_jobs_per_second": ("Measured drain rate.", state.drain_rate or 0.0),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"yolo_queue_{name}", text, value=value)
        counters = {
            "jobs_accepted": ("Jobs accepted.", "accepted"),
            "jobs_refused": ("Jobs refused because the queue was full.", "refused"),
            "attempts": ("Attempts started.", "attempts"),
            "stale_commits": ("Commits refused because the lease was lost.", "stale_commits"),
            "messages_republished": ("Messages renewed after they vanished.", "republished"),
        }
        for name, (text, key) in counters.items():
            yield CounterMetricFamily(f"yolo_queue_{name}", text, value=stats.get(key, 0))
        for name, text, label, prefix in (
            ("jobs_finished", "Jobs that reached a terminal state.", "status", "jobs:"),
            ("jobs_failed", "Failed jobs by error code.", "code", "failed:"),
            ("attempts_lost", "Attempts that ended without an outcome.", "reason", "lost:"),
        ):
            family = CounterMetricFamily(f"yolo_queue_{name}", text, labels=[label])
            for key, value in sorted(stats.items()):
                if key.startswith(prefix):
                    family.add_metric([key.removeprefix(prefix)], value)
            yield family


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Text exposition format"},
        **responses(errors.StoreUnavailable),
    },
)
async def metrics(request: Request) -> Response:
    registry = CollectorRegistry()
    registry.register(QueueCollector(await request.app.state.intake.queue()))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
