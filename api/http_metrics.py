"""Counts and times the requests of this gateway, in the memory of its one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import prometheus_client
from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.background import BackgroundTasks
from api.connection_limiter import REASONS, ConnectionLimiter
from api.notifications import Notifier
from api.upload_budget import UploadBudget

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_LONG_POLL = "yolo_queue.long_poll"
_PROBLEM = "yolo_queue.problem"


def mark_long_poll(request: Request) -> None:
    """Leave this request out of the latencies: it waits on purpose (`wait=`), so its time says
    nothing about the gateway. It is still counted."""
    request.scope[_LONG_POLL] = True


def mark_problem(request: Request, code: str) -> None:
    """Count this request as an error. `code` is one of the stable codes of shared/errors.py."""
    request.scope[_PROBLEM] = code


class RequestMetrics(Collector):
    """The metrics of one gateway, in a registry of its own."""

    def __init__(
        self, budget: UploadBudget, notifier: Notifier, background: BackgroundTasks
    ) -> None:
        # Otherwise each counter has a second series, its time of creation, which nothing uses.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "yolo_queue_gateway_requests",
            "Requests this gateway has answered, by route template, method and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.problems = Counter(
            "yolo_queue_gateway_problems",
            "Requests this gateway has answered with an error, by error code.",
            ["code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "yolo_queue_gateway_request_seconds",
            "Time from request to response headers, without requests that wait for a job.",
            ["method", "route"],
            buckets=_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._background = background
        self.registry.register(self)
        self._gauge(
            "upload_bytes", "Bytes of uploads in this gateway's memory.", lambda: budget.held_bytes
        )
        self._gauge(
            "upload_limit_bytes",
            "Bytes above which it refuses uploads (MAX_GATEWAY_UPLOAD_BYTES).",
            lambda: budget.limit_bytes,
        )
        self._gauge(
            "waiting_requests",
            "Requests that wait for their job to change (wait=, Prefer: wait, /events).",
            notifier.count_watches,
        )

    def show_connections(self, limiter: ConnectionLimiter) -> None:
        """Add the metrics of connections, for a gateway that limits them."""
        limits = limiter.limits
        self._gauge("connections", "Open connections.", lambda: limiter.open_connections)
        self._gauge(
            "connections_limit",
            "Connections above which it refuses requests (MAX_CONNECTIONS, or fewer where the "
            "limit on open files is too low).",
            lambda: limits.connections,
        )
        self._gauge(
            "response_bytes",
            "Bytes of responses that slow clients have not read yet.",
            lambda: limiter.unsent_bytes,
        )
        self._gauge(
            "response_limit_bytes",
            "Unread bytes above which it disconnects slow clients (MAX_GATEWAY_RESPONSE_BYTES).",
            lambda: limits.response_bytes,
        )
        ended = Counter(
            "yolo_queue_gateway_connections_ended",
            "Connections that the gateway ended, not the client, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            ended.labels(reason)
        limiter.count_end = lambda reason: ended.labels(reason).inc()

    def collect(self) -> Iterable[Metric]:
        """The background tasks, which are only known once they have been started."""
        up = GaugeMetricFamily(
            "yolo_queue_gateway_background_up",
            "Whether this gateway's background task is running: 1 or 0.",
            labels=["background"],
        )
        failures = CounterMetricFamily(
            "yolo_queue_gateway_background_failures",
            "How often this gateway's background task has failed.",
            labels=["background"],
        )
        for name, is_up in self._background.up.items():
            up.add_metric([name], int(is_up))
            failures.add_metric([name], self._background.failures[name])
        yield from (up, failures)

    def _gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        gauge = Gauge(f"yolo_queue_gateway_{name}", help_text, registry=self.registry)
        gauge.set_function(read)


class CountRequests:
    """ASGI middleware that counts a request when its response begins. It never touches bodies."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        answered = False

        async def send_counted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._count(scope, message["status"], time.perf_counter() - begin)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not answered:  # Starlette's outermost middleware will answer 500
                scope[_PROBLEM] = "internal"
                self._count(scope, 500, time.perf_counter() - begin)
            raise

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # Every label is from a closed set, so that no client can create series.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(method, route, str(status)).inc()
        if code := scope.get(_PROBLEM):
            self._metrics.problems.labels(code).inc()
        if _LONG_POLL not in scope:
            self._metrics.seconds.labels(method, route).observe(seconds)
