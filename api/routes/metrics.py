"""Owns `GET /metrics`: the service in Prometheus' text format.

The service's counters live in Redis and are read at each scrape: they are the same from every
gateway and survive restarts, so queries take their `max`, not their sum. What is named
`yolo_queue_gateway_...` is this gateway's own. Without Redis there is still an answer, which says
so: a monitoring system must see a gateway that refuses everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared import errors
from shared.job.queue_state import QueueState, RedisMemory
from shared.job.record import JobState
from shared.settings import Settings

router = APIRouter(tags=["service"])

_LOST = ("worker_lost", "timeout", "internal")
_FAILED = (
    errors.UndecodableImage.code,
    errors.ImageMissingInStore.code,
    errors.InvalidTask.code,
    *_LOST,
)
# Name, text, label, prefix in the statistics, and all values the label can have. They are there
# from the start: a series that begins with its first error has no increase for Prometheus to see.
_LABELLED = (
    (
        "jobs_finished",
        "Jobs that reached a terminal state.",
        "status",
        "jobs:",
        tuple(state.value for state in JobState if state.terminal),
    ),
    ("jobs_failed", "Failed jobs by error code.", "code", "failed:", _FAILED),
    ("attempts_lost", "Attempts that ended without an outcome.", "reason", "lost:", _LOST),
)


class QueueCollector(Collector):
    """The service as Redis has it, and the bounds it is held to."""

    def __init__(self, state: QueueState, settings: Settings) -> None:
        self._state = state
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        state, stats, settings = self._state, self._state.stats, self._settings
        processes = sum(int(report.get("processes", 0)) for report in state.workers.values())
        gauges = {
            "jobs_waiting": ("Jobs waiting.", state.depth),
            "jobs_waiting_limit": (
                "Waiting jobs above which new ones are refused (MAX_QUEUE_JOBS).",
                settings.max_queue_jobs,
            ),
            "waiting_bytes": ("Bytes of images waiting.", stats.get("queued_bytes", 0)),
            "waiting_limit_bytes": (
                "Waiting bytes above which new jobs are refused (MAX_QUEUE_BYTES).",
                settings.max_queue_bytes,
            ),
            "oldest_job_age_seconds": ("Age of the oldest waiting job.", state.oldest_age_seconds),
            "oldest_job_age_limit_seconds": (
                "Age at which a waiting job expires (MAX_QUEUE_SECONDS).",
                settings.max_queue_seconds,
            ),
            "jobs_in_flight": ("Jobs being worked on.", state.in_flight),
            "workers": ("Workers that report.", len(state.workers)),
            "processes": ("Pool processes alive, over all workers.", processes),
            "processes_ready": ("Pool processes able to take work.", state.ready_processes),
            "dead_letters": ("Dead letters kept.", state.dead_letters),
            "drain_jobs_per_second": (
                "Jobs finished a second while there is a backlog, as measured; 0: not known.",
                state.drain_rate or 0.0,
            ),
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
        for name, text, label, prefix, known in _LABELLED:
            family = CounterMetricFamily(f"yolo_queue_{name}", text, labels=[label])
            found = {
                key.removeprefix(prefix): value
                for key, value in stats.items()
                if key.startswith(prefix)
            }
            for key, value in sorted({**dict.fromkeys(known, 0), **found}.items()):
                family.add_metric([key], value)
            yield family


class RedisCollector(Collector):
    """Whether Redis answers this gateway, and how full it is."""

    def __init__(self, memory: dict[str, RedisMemory], settings: Settings) -> None:
        self._memory = memory
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "yolo_queue_redis_up",
            "Whether Redis answers this gateway: 1 or 0.",
            value=int(bool(self._memory)),
        )
        used = GaugeMetricFamily(
            "yolo_queue_redis_memory_used_bytes",
            "Memory that Redis uses, by what it holds.",
            labels=["holds"],
        )
        limit = GaugeMetricFamily(
            "yolo_queue_redis_memory_max_bytes",
            "Redis' `maxmemory`; 0: none.",
            labels=["holds"],
        )
        for holds, memory in self._memory.items():
            used.add_metric([holds], memory.used_bytes)
            limit.add_metric([holds], memory.max_bytes)
        yield used
        yield limit
        yield GaugeMetricFamily(
            "yolo_queue_redis_memory_limit_ratio",
            "Share of `maxmemory` above which uploads are refused (REDIS_MEMORY_LIMIT_RATIO).",
            value=self._settings.redis_memory_limit_ratio,
        )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Text exposition format"}},
)
async def metrics(request: Request) -> Response:
    state = request.app.state
    registry = CollectorRegistry()
    memory: dict[str, RedisMemory] = {}
    try:
        queue = await state.store.queue()
        memory = {"jobs": await state.store.memory()}
    except errors.StoreUnavailable:
        pass
    else:
        registry.register(QueueCollector(queue, state.settings))
    registry.register(RedisCollector(memory, state.settings))
    text = generate_latest(registry) + generate_latest(state.request_metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
