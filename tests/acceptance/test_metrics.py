"""Both `/metrics` of a running service, as a Prometheus server reads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample, undecodable
from tests.support.metrics import counters, samples, scrape, value
from tests.support.processes import pool_pids
from tests.support.stack import Stack, free_port, wait_until
from worker.process.shared_memory import OUTCOMES, STAGES

WORKER_PORT = free_port()
WORKER_URL = f"http://127.0.0.1:{WORKER_PORT}/metrics"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("measured"), WORKER_METRICS_PORT=str(WORKER_PORT)) as stack:
        yield stack.start()


@pytest.fixture
def client(measured: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=measured.url, timeout=30) as client:
        yield client


def test_metric_names_and_units(measured: Stack, client: httpx.Client) -> None:
    wait_for(client, submit(client, sample())["task_id"])
    for url in (f"{measured.url}/metrics", WORKER_URL):
        for family in scrape(url):
            name = family.name
            assert name.startswith("yolo_queue_"), name
            assert "queue_queue" not in name, name
            assert family.documentation.endswith("."), name
            # Base units alone; a name that ends in none of them counts things.
            parts = set(name.split("_"))
            assert not parts & {"ms", "milliseconds", "minutes", "mb", "mib", "kb", "percent"}, name
            if family.type == "counter":
                assert all(s.name.endswith("_total") for s in family.samples), name
            elif family.type == "histogram":
                assert name.endswith("_seconds"), name
            else:
                assert not name.endswith("_total"), name
            for one in family.samples:
                assert "created" not in one.name
                # Nothing that is different for every job, client or process.
                assert set(one.labels) <= {
                    *("le", "status", "code", "reason", "stage", "outcome"),
                    *("method", "route", "model", "version", "runtime", "background"),
                }, one


def test_every_job_is_counted_once_on_both_sides(measured: Stack, client: httpx.Client) -> None:
    def both() -> tuple[dict, dict]:  # type: ignore[type-arg]
        return samples(scrape(f"{measured.url}/metrics")), samples(scrape(WORKER_URL))

    gateway_before, worker_before = both()
    image = sample()
    ids = [submit(client, image)["task_id"] for _ in range(12)]
    ids.append(submit(client, encoded(noise(64, 48), "JPEG"), annotate=False)["task_id"])
    jobs = [wait_for(client, task_id) for task_id in ids]
    broken = submit(client, undecodable(1))["task_id"]
    assert wait_for(client, broken)["error"]["code"] == "image_undecodable"
    gateway, worker = both()

    def more(now: dict, before: dict, name: str, **labels: str) -> float:  # type: ignore[type-arg]
        return value(now, name, **labels) - value(before, name, **labels)

    for name in STAGES:
        metric = "yolo_queue_worker_stage_seconds"
        expected = sum(job["timings_ms"][name] for job in jobs) / 1000
        assert more(worker, worker_before, f"{metric}_sum", stage=name) == pytest.approx(expected)
        assert more(worker, worker_before, f"{metric}_count", stage=name) == len(jobs)
        assert more(worker, worker_before, f"{metric}_bucket", stage=name, le="+Inf") == len(jobs)
    total = sum(job["timings_ms"]["total"] for job in jobs) / 1000
    assert more(worker, worker_before, "yolo_queue_worker_job_seconds_sum") == pytest.approx(total)
    for name, expected in (
        ("pixels", sum(job["width"] * job["height"] for job in jobs)),
        ("bytes", 12 * len(image) + len(encoded(noise(64, 48), "JPEG"))),
    ):
        assert more(worker, worker_before, f"yolo_queue_worker_image_{name}_total") == expected
    found = sum(len(job["detections"]) for job in jobs)
    assert more(worker, worker_before, "yolo_queue_worker_detections_total") == found
    ended = "yolo_queue_worker_attempts_total"
    assert more(worker, worker_before, ended, outcome="completed") == len(jobs)
    assert more(worker, worker_before, ended, outcome="failed") == 1
    assert {dict(labels)["outcome"] for name, labels in worker if name == ended} == set(OUTCOMES)

    for name, labels, expected in (
        ("jobs_accepted", {}, 14),
        ("attempts", {}, 14),
        ("jobs_finished", {"status": "completed"}, 13),
        ("jobs_failed", {"code": "image_undecodable"}, 1),
    ):
        name = f"yolo_queue_{name}_total"
        assert more(gateway, gateway_before, name, **labels) == expected, name
    requests = "yolo_queue_gateway_requests_total"
    sent = {"method": "POST", "route": "/predict/"}
    assert more(gateway, gateway_before, requests, status="201", **sent) == 14
    latencies = "yolo_queue_gateway_request_seconds_count"
    assert more(gateway, gateway_before, latencies, **sent) == 14


def test_state_of_service_and_worker(measured: Stack) -> None:
    gateway, worker = samples(scrape(f"{measured.url}/metrics")), samples(scrape(WORKER_URL))
    for name in ("workers", "redis_up"):
        assert value(gateway, f"yolo_queue_{name}") == 1
    assert value(gateway, "yolo_queue_processes_ready") == 2
    used = value(gateway, "yolo_queue_redis_memory_used_bytes")
    assert 0 < used < value(gateway, "yolo_queue_redis_memory_max_bytes")
    assert value(gateway, "yolo_queue_gateway_upload_bytes") == 0
    assert value(gateway, "yolo_queue_jobs_waiting_limit") == 10_000
    for name in ("processes", "processes_loaded"):
        assert value(worker, f"yolo_queue_worker_{name}") == 2
    assert value(worker, "yolo_queue_worker_consuming") == 1
    (model,) = (dict(labels) for name, labels in worker if name == "yolo_queue_worker_model_info")
    assert model["model"] == "demo"
    assert model["runtime"] in ("torch", "openvino")


def test_labels_cannot_be_made_up(measured: Stack, client: httpx.Client) -> None:
    before = len(samples(scrape(f"{measured.url}/metrics")))
    client.get("/nothing-here")
    first = len(samples(scrape(f"{measured.url}/metrics")))
    assert first > before
    for number in range(20):
        client.get(f"/nothing-here/{number}")
        client.get(f"/page/{number}")
        client.get(f"/result/{number:08d}")
        client.request(f"X{number}", f"/nothing/{number}")
    after = samples(scrape(f"{measured.url}/metrics"))
    routes = {dict(labels).get("route", "") for _, labels in after}
    assert not [route for route in routes if any(c.isdigit() for c in route)]
    known = "yolo_queue_gateway_requests_total"
    missing = value(after, known, method="GET", route="/result/{task_id}", status="404")
    assert missing == 20
    assert value(after, "yolo_queue_gateway_problems_total", code="job_not_found") == 20
    unknown = [dict(k) for name, k in after if name == known and dict(k)["route"] == "unmatched"]
    assert {(labels["method"], labels["status"]) for labels in unknown} <= {
        *(("GET", "404"), ("other", "404"), ("other", "405"))
    }


def test_held_answers_do_not_count_as_slow(measured: Stack, client: httpx.Client) -> None:
    task_id = submit(client, sample())["task_id"]
    wait_for(client, task_id)
    labels = {"method": "GET", "route": "/result/{task_id}"}
    latencies = "yolo_queue_gateway_request_seconds_count"
    before = value(samples(scrape(f"{measured.url}/metrics")), latencies, **labels)
    assert client.get(f"/result/{task_id}", params={"wait": 5}).status_code == 200
    assert value(samples(scrape(f"{measured.url}/metrics")), latencies, **labels) == before


def test_counters_survive_a_killed_process(measured: Stack, client: httpx.Client) -> None:
    """Killed again and again under a steady scrape: its successors fork from a parent that has the
    metrics thread, and every one of them must come up."""
    wait_for(client, submit(client, sample())["task_id"])
    before = counters(scrape(WORKER_URL))
    for _ in range(3):
        victims = pool_pids(measured.workers[0])
        large = submit(client, encoded(noise(4000, 3000), "JPEG", quality=60))["task_id"]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        def replaced(gone: frozenset[int] = frozenset(victims)) -> bool:
            nonlocal before
            now = counters(scrape(WORKER_URL))
            backwards = {key: now[key] for key, count in before.items() if now[key] < count}
            assert not backwards
            before = now
            alive = set(pool_pids(measured.workers[0]))
            return len(alive) == 2 and not alive & gone

        wait_until(replaced, seconds=30, what="both processes are replaced")
        measured.wait_ready(processes=2)
        assert wait_for(client, large, seconds=60)["status"] == "completed"
    # The last heartbeat may be of a moment when the last two were still loading.
    wait_until(
        lambda: value(samples(scrape(WORKER_URL)), "yolo_queue_worker_processes_loaded") == 2,
        seconds=10,
        what="the next heartbeat tells of both",
    )


def test_a_taken_port_stops_the_worker_with_one_clear_line(measured: Stack) -> None:
    worker = measured.start_worker("second")
    assert worker.wait(timeout=60) != 0
    log = measured.log("worker-second").read_text()
    assert f"WORKER_METRICS_PORT={WORKER_PORT} on 127.0.0.1 cannot be used" in log
    assert "Traceback" not in log


def test_a_worker_that_was_killed_leaves_its_port(measured: Stack) -> None:
    """Its processes live on for a moment; none of them may hold the socket."""
    children = pool_pids(measured.workers[0])
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        measured.workers[0].kill()
        measured.workers[0].wait()
        measured.workers[0] = measured.start_worker()
        wait_until(
            lambda: "metrics on http" in measured.logs().rpartition("cannot be used")[2],
            seconds=60,
            what="the next worker serves its metrics",
        )
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
