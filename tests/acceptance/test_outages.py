"""What users see while a part is down, and that every part recovers by itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until

IMAGE = encoded(noise(40, 30), "PNG")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("fragile"), WORKER_CONCURRENCY="1") as stack:
        yield stack.start()


def unavailable(stack: Stack, client: httpx.Client) -> None:
    """503 problem+json in under 2 s on every path that needs Redis."""
    for method, path in (
        ("POST", "/predict/"),
        ("GET", "/result/00000000-0000-4000-8000-000000000000"),
        ("GET", "/queue"),
        ("GET", "/ready"),
    ):
        begin = time.monotonic()
        answer = client.request(
            method,
            path,
            content=IMAGE if method == "POST" else None,
            headers={"Content-Type": "image/png"},
        )
        took = time.monotonic() - begin
        assert answer.status_code == 503, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "redis_unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        assert took < 2, (path, took)
    assert client.get("/health").status_code == 200, "the gateway itself is up"
    assert "yolo_queue_redis_up 0.0" in client.get("/metrics").text, "and says what is wrong"


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_redis_goes_away_and_comes_back(fragile: Stack, how: str) -> None:
    with httpx.Client(base_url=fragile.url, timeout=10) as client:
        kept = submit(client, sample())["task_id"]
        if how == "killed":
            fragile.redis.kill()
            unavailable(fragile, client)
            fragile.redis.start()
        else:
            os.kill(fragile.redis.pid, signal.SIGSTOP)
            unavailable(fragile, client)
            os.kill(fragile.redis.pid, signal.SIGCONT)
        back = time.monotonic()
        fresh = wait_until(
            lambda: (
                (r := client.post("/predict/", files={"file": sample()})).status_code == 201
                and r.json()["task_id"]
            ),
            seconds=10,
            what="the gateway accepts again",
        )
        assert wait_for(client, fresh, seconds=10)["status"] == "completed"
        assert time.monotonic() - back < 12
        # Accepted before the outage. If its message was on the way to a worker at that moment, it
        # vanished with the connection and is renewed as a lost worker's would be: within 30 s.
        assert wait_for(client, kept, seconds=30)["status"] == "completed"
        assert fragile.gateway.poll() is None
        assert fragile.workers[0].poll() is None


def test_without_a_worker_jobs_wait_and_ready_says_so(fragile: Stack) -> None:
    with httpx.Client(base_url=fragile.url, timeout=10) as client:
        fragile.workers[0].terminate()
        fragile.workers[0].wait(timeout=30)
        answer = client.get("/ready")
        if answer.status_code == 200:  # the last report may still count for a moment
            wait_until(
                lambda: client.get("/ready").status_code == 503, seconds=12, what="not ready"
            )
        answer = client.get("/ready")
        assert answer.json()["code"] == "no_worker_ready"
        waiting = submit(client, sample())
        assert waiting["status"] == "queued"
        fragile.workers[0] = fragile.start_worker()
        assert wait_for(client, waiting["task_id"], seconds=60)["status"] == "completed"
        fragile.wait_ready()


def test_a_killed_pool_process_costs_no_job(fragile: Stack) -> None:
    with httpx.Client(base_url=fragile.url, timeout=10) as client:
        fragile.wait_ready()
        large = encoded(noise(5000, 4000), "JPEG", quality=60)
        task_id = submit(client, large)["task_id"]

        def status() -> str:
            return str(client.get(f"/result/{task_id}").json()["status"])

        wait_until(lambda: status() != "queued", seconds=10, what="it is being worked on")
        for pid in pool_pids(fragile.workers[0]):
            os.kill(pid, signal.SIGKILL)
        job = wait_for(client, task_id, seconds=60)
        assert job["status"] == "completed"
        assert job["attempts"] in (1, 2)


def test_sigterm_drains_the_worker(fragile: Stack) -> None:
    with httpx.Client(base_url=fragile.url, timeout=10) as client:
        fragile.wait_ready()
        ids = [submit(client, sample())["task_id"] for _ in range(10)]
        # As a supervisor does that signals the whole group.
        os.killpg(fragile.workers[0].pid, signal.SIGTERM)
        assert fragile.workers[0].wait(timeout=30) == 0
        fragile.workers[0] = fragile.start_worker()
        jobs = [wait_for(client, task_id, seconds=60) for task_id in ids]
        assert {job["status"] for job in jobs} == {"completed"}
        assert {job["attempts"] for job in jobs} == {1}, "nothing was run twice or failed"


def test_sigterm_drains_the_gateway(fragile: Stack) -> None:
    fragile.wait_ready()
    with httpx.Client(base_url=fragile.url, timeout=30) as client:

        def slow_body() -> Iterator[bytes]:
            yield IMAGE[:1000]
            fragile.gateway.terminate()
            wait_until(
                lambda: "Shutting down" in fragile.log("api").read_text(),
                seconds=10,
                what="the gateway has heard the signal",
            )
            yield IMAGE[1000:]

        answer = client.post(
            "/predict/", content=slow_body(), headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 201
        fragile.gateway.wait(timeout=30)
        fragile.start_gateway()
        assert wait_for(client, answer.json()["task_id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"YOLO_MODEL": "/nowhere/best.pt"}, "/nowhere/best.pt is not there"),
        ({"YOLO_MODEL_SHA256": "0" * 64}, "not the one in YOLO_MODEL_SHA256"),
        ({"YOLO_MODEL": __file__}, "does not load"),
        ({"YOLO_DEVICE": "cuda:7"}, "does not load on cuda:7"),
    ],
)
def test_a_worker_that_cannot_serve_stops_with_one_clear_line(
    fragile: Stack, environment: dict[str, str], message: str
) -> None:
    worker = fragile.spawn(
        "worker-broken",
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker"),
        *("--hostname", "broken@test"),
        **environment,
    )
    assert worker.wait(timeout=60) != 0
    log = fragile.log("worker-broken").read_text()
    fragile.log("worker-broken").unlink()
    lines = [line for line in log.splitlines() if message in line]
    assert lines, log
    assert "Traceback" not in log
