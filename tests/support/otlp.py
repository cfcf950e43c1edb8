"""Collects OpenTelemetry traces: OTLP over HTTP, into a list."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    service: str
    pid: int
    start_ns: int
    end_ns: int
    error: str
    attributes: dict[str, Any] = field(default_factory=dict)
    events: tuple[str, ...] = ()


class Collector:
    """Listens on a free port of loopback; `spans` grows as they come in."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of_job(self, task_id: str) -> list[Span]:
        """Every span of the trace that the job's attempts are in, by start."""
        traces = {
            span.trace_id
            for span in list(self.spans)
            if span.attributes.get("yolo_queue.task_id") == task_id and span.name == "attempt"
        }
        found = [span for span in list(self.spans) if span.trace_id in traces]
        return sorted(found, key=lambda span: span.start_ns)


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    out = []
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                out.append(
                    Span(
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        service=resource["service.name"],
                        pid=resource["process.pid"],
                        start_ns=span.start_time_unix_nano,
                        end_ns=span.end_time_unix_nano,
                        error=span.status.message if span.status.code == 2 else "",
                        attributes=_attributes(span.attributes),
                        events=tuple(event.name for event in span.events),
                    )
                )
    return out


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
