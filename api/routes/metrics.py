"""Serves `GET /metrics` in Prometheus' text format.

The counters of the service are in Redis and are read at each scrape. Every gateway reports the same
values, so queries take their `max`, not their sum. The metrics `yolo_queue_gateway_...` are of this
gateway alone. Without Redis there is still a response, with `yolo_queue_redis_up 0`: monitoring
must see a gateway that refuses everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.services import services_of
from shared import errors
from shared.job.queue_state import ModelState, QueueState, RedisMemory
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
_TERMINAL = tuple(state.value for state in JobState if state.terminal)
_OF_MODEL: tuple[tuple[str, str, Callable[[ModelState], float]], ...] = (
    ("jobs_waiting", "Waiting jobs of the model.", lambda model: model.depth),
    ("waiting_bytes", "Bytes of its waiting images.", lambda model: model.queued_bytes),
    ("jobs_in_flight", "Running jobs of the model.", lambda model: model.in_flight),
    (
        "oldest_job_age_seconds",
        "Age of its oldest waiting job.",
        lambda model: model.oldest_age_seconds,
    ),
    (
        "processes_ready",
        "Pool processes ready for its jobs.",
        lambda model: model.ready_processes,
    ),
    (
        "drain_jobs_per_second",
        "Its measured jobs per second while there is a backlog. 0: unknown.",
        lambda model: model.drain_rate or 0.0,
    ),
)
# Name, help, label, prefix in the statistics, and all values of the label. Every value is reported
# from the start: Prometheus sees no increase in a series that begins with its first error.
_LABELLED = (
    (
        "jobs_finished",
        "Jobs that reached a terminal state.",
        "status",
        "jobs:",
        _TERMINAL,
    ),
    ("jobs_failed", "Failed jobs by error code.", "code", "failed:", _FAILED),
    ("attempts_lost", "Attempts that ended without a result.", "reason", "lost:", _LOST),
)


class QueueCollector(Collector):
    """The queue as Redis has it, and its limits."""

    def __init__(self, state: QueueState, settings: Settings) -> None:
        self._state = state
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        state, stats, settings = self._state, self._state.stats, self._settings
        processes = sum(int(report.get("processes", 0)) for report in state.workers.values())
        gauges = {
            "jobs_waiting": ("Waiting jobs.", state.depth),
            "jobs_waiting_limit": (
                "Waiting jobs above which the gateway refuses new ones (MAX_QUEUE_JOBS).",
                settings.max_queue_jobs,
            ),
            "waiting_bytes": ("Bytes of waiting images.", stats.get("queued_bytes", 0)),
            "waiting_limit_bytes": (
                "Waiting bytes above which the gateway refuses new jobs (MAX_QUEUE_BYTES).",
                settings.max_queue_bytes,
            ),
            "oldest_job_age_seconds": ("Age of the oldest waiting job.", state.oldest_age_seconds),
            "oldest_job_age_limit_seconds": (
                "Age at which a waiting job expires (MAX_QUEUE_SECONDS).",
                settings.max_queue_seconds,
            ),
            "jobs_in_flight": ("Running jobs.", state.in_flight),
            "workers": ("Workers alive.", len(state.workers)),
            "processes": ("Pool processes alive, of all workers.", processes),
            "processes_ready": ("Pool processes ready for jobs.", state.ready_processes),
            "dead_letters": ("Dead letters kept.", state.dead_letters),
            "drain_jobs_per_second": (
                "Measured jobs per second while there is a backlog. 0: unknown.",
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
            "messages_republished": (
                "Messages written again: vanished, or passed on.",
                "republished",
            ),
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


class ModelsCollector(Collector):
    """Each model's part of the queue. There are as many as workers announce, and no client can add
    one."""

    def __init__(self, state: QueueState, settings: Settings) -> None:
        self._state, self._settings = state, settings
        self._models = state.models.values()

    def collect(self) -> Iterable[Metric]:
        for name, text, of in _OF_MODEL:
            gauge = GaugeMetricFamily(f"yolo_queue_model_{name}", text, labels=["model"])
            for model in self._models:
                gauge.add_metric([model.name], of(model))
            yield gauge
        yield from self._limits()
        accepted = CounterMetricFamily(
            "yolo_queue_model_jobs_accepted", "Jobs accepted for the model.", labels=["model"]
        )
        finished = CounterMetricFamily(
            "yolo_queue_model_jobs_finished",
            "Jobs of the model that reached a terminal state.",
            labels=["model", "status"],
        )
        for model in self._models:
            accepted.add_metric([model.name], model.stats.get("accepted", 0))
            for status in _TERMINAL:
                finished.add_metric([model.name, status], model.stats.get(f"jobs:{status}", 0))
        yield from (accepted, finished)

    def _limits(self) -> Iterable[Metric]:
        state, settings = self._state, self._settings
        jobs = GaugeMetricFamily(
            "yolo_queue_model_jobs_waiting_limit",
            "Waiting jobs of the model above which the gateway refuses new ones.",
            labels=["model"],
        )
        size = GaugeMetricFamily(
            "yolo_queue_model_waiting_limit_bytes",
            "Waiting bytes of the model above which the gateway refuses new jobs.",
            labels=["model"],
        )
        for model in self._models:
            max_jobs, max_bytes = state.limits_of(model.name, settings)
            jobs.add_metric([model.name], max_jobs)
            size.add_metric([model.name], max_bytes)
        yield from (jobs, size)


class RedisCollector(Collector):
    """Whether Redis answers this gateway, and how full it is."""

    def __init__(self, memory: RedisMemory | None, settings: Settings) -> None:
        self._memory = memory
        self._settings = settings

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "yolo_queue_redis_up",
            "Whether Redis answers this gateway: 1 or 0.",
            value=int(self._memory is not None),
        )
        if self._memory is not None:
            yield GaugeMetricFamily(
                "yolo_queue_redis_memory_used_bytes",
                "Memory used by Redis.",
                value=self._memory.used_bytes,
            )
            yield GaugeMetricFamily(
                "yolo_queue_redis_memory_max_bytes",
                "The `maxmemory` of Redis. 0: no limit.",
                value=self._memory.max_bytes,
            )
        yield GaugeMetricFamily(
            "yolo_queue_redis_memory_limit_ratio",
            "Share of `maxmemory` above which the gateway refuses uploads "
            "(REDIS_MEMORY_LIMIT_RATIO).",
            value=self._settings.redis_memory_limit_ratio,
        )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Text exposition format"}},
)
async def metrics(request: Request) -> Response:
    services = services_of(request)
    registry = CollectorRegistry()
    memory: RedisMemory | None = None
    try:
        queue = await services.store.queue()
        memory = await services.store.memory()
    except errors.StoreUnavailable:
        pass
    else:
        registry.register(QueueCollector(queue, services.settings))
        registry.register(ModelsCollector(queue, services.settings))
    registry.register(RedisCollector(memory, services.settings))
    text = generate_latest(registry) + generate_latest(services.request_metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
