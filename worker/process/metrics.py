"""Serves a worker's `/metrics` from its parent: what its pool processes counted.

The server is a thread of the parent, and the parent forks when a pool process has died. That is
safe: the thread imports nothing while it serves, so it holds no import lock; the fork itself resets
the locks of logging, the interpreter and the allocator; and a child only has to close the port.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from shared.errors import StartupError
from shared.job.queue_state import SHORT_VERSION
from worker.model.runtimes import ServedModel
from worker.process.shared_memory import BUCKETS_SECONDS, STAGES, Counters, Histogram

log = logging.getLogger("yolo_queue.worker")

_BOUNDS = (*map(str, BUCKETS_SECONDS), "+Inf")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scrape is made of. `report` and `reported_at` (epoch seconds) are of the last
    heartbeat that Redis took; both are empty before the first."""

    counters: Counters
    report: Mapping[str, Any]
    reported_at: float
    models: tuple[ServedModel, ...]


class WorkerCollector(Collector):
    """Reads a new `Snapshot` at each scrape."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        now = self._snapshot()
        yield from _counted(now.counters)
        for name, text, field in (
            ("processes", "Pool processes alive.", "processes"),
            ("processes_loaded", "Pool processes that have loaded their model.", "loaded"),
            ("jobs_running", "Jobs being worked on.", "running"),
            ("consuming", "Whether messages reach this worker: 1 or 0.", "consuming"),
        ):
            value = float(now.report.get(field, 0))
            yield GaugeMetricFamily(f"yolo_queue_worker_{name}", text, value=value)
        yield GaugeMetricFamily(
            "yolo_queue_worker_heartbeat_timestamp_seconds",
            "When Redis last took a heartbeat of this worker, since the epoch; 0: never.",
            value=now.reported_at,
        )
        info = InfoMetricFamily(
            "yolo_queue_worker_model",
            "A model served, its version (the first digits of its SHA-256), and what runs it.",
            labels=["model", "version", "runtime"],
        )
        for model in now.models:
            info.add_metric([model.name, model.version[:SHORT_VERSION], model.runtime], {})
        yield info


def _counted(counters: Counters) -> Iterable[Metric]:
    stages = HistogramMetricFamily(
        "yolo_queue_worker_stage_seconds",
        "Time of completed jobs in each stage; `queue`: from being accepted to being started.",
        labels=["stage"],
    )
    for stage in STAGES:
        stages.add_metric([stage], *_buckets(counters.histograms[stage]))
    yield stages
    whole = HistogramMetricFamily(
        "yolo_queue_worker_job_seconds", "Time of completed jobs from being accepted.", labels=[]
    )
    whole.add_metric([], *_buckets(counters.histograms["total"]))
    yield whole
    attempts = CounterMetricFamily(
        "yolo_queue_worker_attempts",
        "Attempts that ended here, by outcome.",
        labels=["outcome"],
    )
    for outcome, count in counters.outcomes.items():
        attempts.add_metric([outcome], count)
    yield attempts
    for name, text, key in (
        ("image_bytes", "Bytes of the images of completed jobs.", "bytes"),
        ("image_pixels", "Pixels of the images of completed jobs.", "pixels"),
        ("detections", "Detections in completed jobs.", "detections"),
        ("batches", "Micro-batches: two jobs or more in one forward pass.", "batches"),
        ("batch_jobs", "Jobs that ran in micro-batches.", "batch_jobs"),
    ):
        yield CounterMetricFamily(f"yolo_queue_worker_{name}", text, value=counters.totals[key])


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    return list(zip(_BOUNDS, histogram.counts, strict=True)), histogram.sum_seconds


def serve(host: str, port: int, snapshot: Callable[[], Snapshot]) -> None:
    """Serve until the process ends. Raises `StartupError` if the port cannot be had."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(snapshot))
    generate_latest(registry)  # whatever it imports, it imports now
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise StartupError(
            f"WORKER_METRICS_PORT={port} on {host} cannot be used: {error.strerror or error}"
        ) from error
    # A child that outlives a killed parent must not keep the next worker from the port.
    os.register_at_fork(after_in_child=server.socket.close)
    log.info("metrics on http://%s:%d/metrics", host, port)
