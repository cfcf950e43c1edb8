"""One trace from the request to the last attempt, as a collector receives it."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from shared.job.keys import TASK_NAME
from shared.settings import Settings
from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample, undecodable
from tests.support.poison import poison
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until
from worker.app import create_app

pytest.importorskip("opentelemetry.sdk")
from tests.support.otlp import Collector, Span

STAGES = ["fetch", "decode", "infer", "draw", "commit"]
OTHERS_TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{OTHERS_TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("traced"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    ) as stack:
        yield stack.start(app="tests.chaos.app")


@pytest.fixture
def client(traced: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=traced.url, timeout=30) as client:
        yield client


def trace_of(collector: Collector, task_id: str, *, attempts: int = 1) -> list[Span]:
    """Waits until the attempts' spans and the request's have come in."""

    def complete() -> list[Span] | None:
        spans = collector.of_job(task_id)
        names = [span.name for span in spans]
        whole = names.count("attempt") == attempts and "POST /predict/" in names
        return spans if whole else None

    return list(wait_until(complete, seconds=20, what=f"{attempts} attempts of {task_id}"))


def test_one_trace_over_gateway_and_worker(
    traced: Stack, client: httpx.Client, collector: Collector
) -> None:
    task_id = submit(client, sample())["task_id"]
    job = wait_for(client, task_id)
    spans = trace_of(collector, task_id)
    assert {span.trace_id for span in spans} == {spans[0].trace_id}
    request, attempt, *stages = spans
    assert (request.name, request.service) == ("POST /predict/", "yolo-queue-gateway")
    assert request.parent_id == ""
    assert request.pid == traced.gateway.pid
    assert (attempt.name, attempt.service) == ("attempt", "yolo-queue-worker")
    assert attempt.parent_id == request.span_id
    assert attempt.pid in pool_pids(traced.workers[0]), "exported by the process that did the work"
    assert [span.name for span in stages] == STAGES
    assert {span.parent_id for span in stages} == {attempt.span_id}
    assert {request.attributes["yolo_queue.task_id"], attempt.attributes["yolo_queue.task_id"]} == {
        task_id
    }
    assert attempt.attributes["yolo_queue.attempt"] == 1
    queue_ms = job["timings_ms"]["queue"]
    assert attempt.attributes["yolo_queue.queue_seconds"] == pytest.approx(queue_ms / 1000)
    for name in ("decode", "infer", "draw"):
        (span,) = [span for span in stages if span.name == name]
        took_ms = (span.end_ns - span.start_ns) / 1e6
        assert took_ms == pytest.approx(job["timings_ms"][name], abs=0.6), name
    for earlier, later in itertools.pairwise(stages):
        assert earlier.end_ns <= later.start_ns + 50_000
    assert attempt.start_ns <= stages[0].start_ns
    assert stages[-1].end_ns <= attempt.end_ns
    assert not any(span.error for span in spans)


def test_a_clients_trace_is_continued(client: httpx.Client, collector: Collector) -> None:
    answer = client.post(
        "/predict/", files={"file": sample()}, headers={"traceparent": TRACEPARENT}
    )
    spans = trace_of(collector, answer.json()["task_id"])
    assert spans[0].trace_id == OTHERS_TRACE
    assert spans[0].parent_id == "b7ad6b7169203331"


def test_an_unsampled_request_is_not_traced(client: httpx.Client, collector: Collector) -> None:
    headers = {"traceparent": "00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    unsampled = client.post("/predict/", files={"file": sample()}, headers=headers)
    wait_for(client, unsampled.json()["task_id"])
    trace_of(collector, submit(client, sample())["task_id"])  # later, so it would be there by now
    assert not [s for s in collector.spans if s.trace_id == "11f7651916cd43dd8448eb211c80319c"]


def test_attempts_after_a_loss_are_in_the_same_trace(
    client: httpx.Client, collector: Collector
) -> None:
    """Each of them came with a message that was made anew."""
    task_id = submit(client, poison("raise"))["task_id"]
    assert wait_for(client, task_id)["error"]["code"] == "internal"
    spans = trace_of(collector, task_id, attempts=3)
    request = spans[0]
    attempts = [span for span in spans if span.name == "attempt"]
    assert {span.parent_id for span in attempts} == {request.span_id}
    assert [span.attributes["yolo_queue.attempt"] for span in attempts] == [1, 2, 3]
    for span in attempts:
        assert span.error == "poison"
        assert span.attributes["error.type"] == "RuntimeError"
        assert span.events == ("exception",)


def test_a_killed_process_loses_its_span_and_no_more(
    traced: Stack, client: httpx.Client, collector: Collector
) -> None:
    task_id = submit(client, encoded(noise(6000, 5000), "JPEG", quality=60))["task_id"]

    def running() -> bool:
        return bool(client.get(f"/result/{task_id}").json()["status"] == "processing")

    wait_until(running, seconds=10, what="it is being worked on")
    killed = pool_pids(traced.workers[0])
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    job = wait_for(client, task_id, seconds=60)
    assert (job["status"], job["attempts"]) == ("completed", 2)
    everything = trace_of(collector, task_id)
    # A stage that had ended may have been sent before the kill; its attempt had not ended.
    assert "attempt" not in {span.name for span in everything if span.pid in killed}
    spans = [span for span in everything if span.pid not in killed]
    assert [span.name for span in spans] == ["POST /predict/", "attempt", *STAGES]
    assert spans[1].attributes["yolo_queue.attempt"] == 2
    assert spans[1].parent_id == spans[0].span_id
    assert spans[1].pid in pool_pids(traced.workers[0])


def test_a_jobs_own_failure_is_on_its_span(client: httpx.Client, collector: Collector) -> None:
    task_id = submit(client, undecodable(2))["task_id"]
    wait_for(client, task_id)
    attempt = trace_of(collector, task_id)[1]
    assert attempt.attributes["error.type"] == "image_undecodable"
    assert attempt.error


def test_a_producer_without_a_gateway(
    traced: Stack, client: httpx.Client, collector: Collector
) -> None:
    """Its trace context is in its message's headers, where OpenTelemetry for Celery puts it."""
    trace_id = "22f7651916cd43dd8448eb211c80319c"
    app = create_app(Settings(redis_url=traced.redis.url))
    image = base64.b64encode(encoded(noise(64, 48), "JPEG")).decode()
    outcome = app.send_task(
        TASK_NAME,
        kwargs={"image": image},
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
    )
    wait_until(outcome.ready, seconds=20, what="the task ends")
    app.pool.force_close_all()
    app.close()

    def attempts() -> list[Span]:
        return [s for s in collector.spans if s.trace_id == trace_id and s.name == "attempt"]

    (attempt,) = wait_until(attempts, seconds=10, what="its attempt comes in")
    assert attempt.parent_id == "b7ad6b7169203331"


def test_the_last_spans_are_sent_before_the_end(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With an export every ten minutes only what is flushed at the end arrives."""
    with Stack(
        tmp_path_factory.mktemp("flushed"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="600000",
        OTEL_SERVICE_NAME="mine",
        WORKER_CONCURRENCY="1",
    ) as stack:
        stack.start()
        with httpx.Client(base_url=stack.url, timeout=30) as client:
            task_id = submit(client, sample())["task_id"]
            wait_for(client, task_id)
        assert not collector.of_job(task_id)
        stack.stop()
    spans = trace_of(collector, task_id)
    assert {span.service for span in spans} == {"mine"}


def test_an_unreachable_collector_costs_only_spans(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Stack(
        tmp_path_factory.mktemp("alone"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        WORKER_CONCURRENCY="1",
    ) as stack:
        stack.start()
        with httpx.Client(base_url=stack.url, timeout=30) as client:
            job = wait_for(client, submit(client, sample())["task_id"])
            assert job["status"] == "completed"
        for process in (stack.workers[0], stack.gateway):
            process.terminate()
            assert process.wait(timeout=10) in (0, -signal.SIGTERM), "a stop does not hang on it"


@pytest.mark.parametrize(
    "command",
    [("-m", "api"), ("-m", "celery", "--quiet", "-A", "worker.app", "worker")],
    ids=["gateway", "worker"],
)
def test_without_the_group_it_says_what_to_install(
    traced: Stack, command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # FastAPI needs OpenTelemetry's API; the SDK and the exporter come with the group.
    hidden = tmp_path_factory.mktemp("hidden") / "opentelemetry" / "sdk"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed')")
    out = subprocess.run(
        [sys.executable, *command],
        env={**traced.environment, "PYTHONPATH": str(hidden.parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert out.returncode != 0
    assert "uv pip install --group otel" in out.stderr
    assert "Traceback" not in out.stderr
