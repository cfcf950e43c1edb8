"""Writes OpenTelemetry traces: one trace from the request, through the queue, over every attempt.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Then nothing is imported, and every function here
returns at once. The SDK reads its other standard variables itself (`OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, ...).

A job's record keeps the context of the request that made it, so that an attempt after a loss, which
has a new message, belongs to the same trace. The first message also has it in its headers, where
other readers of Celery messages look for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from shared.errors import StartupError, YoloQueueError
from shared.job.record import Attempt
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

HEADER = "traceparent"
"""W3C's name, as a Celery header and as a field of the job's record."""
FLUSH_SECONDS = 3.0
"""How long a stopping process waits for a collector that may be unreachable."""

_OFF: AbstractContextManager[None] = nullcontext()

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def load(settings: Settings) -> bool:
    """Import what tracing needs, if it is on; starts nothing. Raises `StartupError`."""
    if not settings.otel_exporter_otlp_endpoint:
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        raise StartupError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "install the dependency group `otel` (uv pip install --group otel)"
        ) from error
    return True


def start(service: str, settings: Settings) -> TracerProvider | None:
    """Begin to export this process' spans, under `service` unless `OTEL_SERVICE_NAME` is set.

    Starts a thread: in a pool process call it after the fork. None when tracing is off.
    """
    global _provider, _tracer
    if not load(settings):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": service, "process.pid": os.getpid()})
    _provider = TracerProvider(
        resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("yolo_queue")
    return _provider


def stop() -> None:
    """Send the remaining spans, for `FLUSH_SECONDS` at most: a stop must not hang on a
    collector."""
    global _provider, _tracer
    if _provider is None:
        return
    flush = threading.Thread(target=_provider.shutdown, name="last spans", daemon=True)
    flush.start()
    flush.join(FLUSH_SECONDS)
    _provider = _tracer = None


def traceparent() -> str:
    """The current span's context as W3C's header; empty without one."""
    if _tracer is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER, "")


def tag_task(task_id: str) -> None:
    """Mark the current span with its job."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attribute("yolo_queue.task_id", task_id)


def span(name: str) -> AbstractContextManager[Any]:
    """A child of the current span. Errors are recorded by the attempt around it."""
    if _tracer is None:
        return _OFF
    return _tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    )


def stages(begin: float, **seconds: float) -> None:
    """Children of the current span for work that is done: one after the other from `begin`
    (`time.perf_counter`), each of the given length."""
    if _tracer is None:
        return
    at = _clock_ns(begin)
    for name, length in seconds.items():
        end = at + round(length * 1e9)
        _tracer.start_span(name, start_time=at).end(end)
        at = end


def _clock_ns(moment: float) -> int:
    return time.time_ns() - round((time.perf_counter() - moment) * 1e9)


def attempt_span(attempt: Attempt, begin: float | None = None) -> AbstractContextManager[Any]:
    """Around one attempt: a child of the request that made the job. `begin` (`time.perf_counter`),
    if it began before."""
    return _OFF if _tracer is None else _attempt_span(_tracer, attempt, begin)


@contextmanager
def _attempt_span(tracer: Tracer, attempt: Attempt, begin: float | None) -> Iterator[None]:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    record = attempt.record
    started_ms = record.started_ms or record.created_ms
    start_time = None if begin is None else _clock_ns(begin)
    with tracer.start_as_current_span(
        "attempt",
        context=TraceContextTextMapPropagator().extract({HEADER: record.traceparent}),
        kind=SpanKind.CONSUMER,
        start_time=start_time,
        attributes={
            "yolo_queue.task_id": attempt.task_id,
            "yolo_queue.attempt": attempt.number,
            "yolo_queue.queue_seconds": (started_ms - record.created_ms) / 1000,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception as error:
            _record(span, error)
            raise


def _record(span: Span, error: Exception) -> None:
    from opentelemetry.trace import StatusCode

    # Celery gets `Ignore`, since the job's record has the error already; its cause says why.
    cause = error if isinstance(error, YoloQueueError) else error.__cause__
    if cause is None:
        span.set_status(StatusCode.ERROR, "the lease was lost; nothing was committed")
        return
    code = cause.code if isinstance(cause, YoloQueueError) else type(cause).__name__
    span.set_attribute("error.type", code)
    span.record_exception(cause)
    span.set_status(StatusCode.ERROR, str(cause))
