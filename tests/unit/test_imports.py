from __future__ import annotations

import subprocess
import sys


def test_the_gateway_stays_thin() -> None:
    """Asked of a fresh interpreter, since the tests' own has everything loaded."""
    code = (
        "import sys, api.app; api.app.create_app();"
        "print(*[m for m in ('torch', 'ultralytics', 'cv2', 'numpy', 'celery', 'worker')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_inspecting_needs_no_torch() -> None:
    code = (
        "import sys, worker.app; worker.app.app.loader.import_default_modules();"
        "print(*[m for m in ('torch', 'ultralytics', 'cv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_tracing_that_is_off_loads_nothing() -> None:
    """What traces need, that is: FastAPI and redis-py import other parts of OpenTelemetry."""
    code = (
        "import sys, api.app, worker.app, worker.job; api.app.create_app();"
        "parts = ('opentelemetry.sdk.trace', 'opentelemetry.exporter');"
        "print(*[m for m in parts if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_the_metrics_thread_imports_nothing_while_it_serves() -> None:
    """A fork in the middle of an import would leave the child with a locked module."""
    code = """
import socket, sys
from worker.process import metrics
from worker.process.shared_memory import SharedMemory

def asked(accept):
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(f"GET /metrics HTTP/1.0\\r\\nAccept: {accept}\\r\\n"
                    "Accept-Encoding: gzip\\r\\n\\r\\n".encode())
        while part := one.recv(65536):
            answer.append(part)

memory, answer = SharedMemory(), []
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
serve = metrics.serve
serve("127.0.0.1", port, lambda: metrics.Snapshot(memory.counters(), {}, 0.0, ()))
before = set(sys.modules)
asked("text/plain")
asked("application/openmetrics-text;version=1.0.0,*/*;q=0.1")
print(b" 200 " in answer[0], *sorted(set(sys.modules) - before))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["True"]
