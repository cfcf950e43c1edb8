"""Celery's own commands against the running service, as a user types them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys

import httpx

from shared.errors import InvalidTask
from shared.settings import Settings
from tests.support.client import wait_for
from tests.support.images import encoded, noise, photograph
from tests.support.processes import pool_pids
from tests.support.stack import Stack, free_port, wait_until
from worker.app import create_app


def celery(stack: Stack, *arguments: str) -> str:
    out = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", *arguments],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return out.stdout


def test_each_pool_process_holds_an_instance_of_its_own(stack: Stack) -> None:
    """Design section 4: N processes, N instances, none in the parent."""
    worker = stack.workers[0]
    children = pool_pids(worker)
    assert len(children) == 2
    # Each process says so itself, after it has made its detector and predicted with it.
    loaded = [int(pid) for pid in re.findall(r"\(pid (\d+)\) has loaded its model", stack.logs())]
    assert sorted(loaded) == sorted(children), "each child once, and the parent never"
    for pid in children:
        assert os.getpgid(pid) == pid, "signals to the service's group do not reach it"


def test_inspect_and_control(stack: Stack) -> None:
    assert "1 node online" in celery(stack, "inspect", "active")
    assert "yolo.detect" in celery(stack, "inspect", "registered")
    assert "OK" in celery(stack, "control", "enable_events")


def test_a_producer_without_a_gateway(stack: Stack, client: httpx.Client) -> None:
    image = encoded(noise(64, 48), "JPEG")
    arguments = {"image": base64.b64encode(image).decode(), "conf": 0.5}
    task_id = celery(stack, "call", "yolo.detect", "--kwargs", json.dumps(arguments)).strip()
    wait_until(
        lambda: client.get(f"/result/{task_id}").status_code == 200, seconds=20, what="adopted"
    )
    job = wait_for(client, task_id)
    assert job["status"] == "completed"
    assert (job["width"], job["height"]) == (64, 48)
    assert "detections" in celery(stack, "result", task_id)


def test_an_invalid_inline_task_fails_alone(stack: Stack, client: httpx.Client) -> None:
    app = create_app(Settings(redis_url=stack.redis.url))
    for arguments in (
        {"image": "not base64!"},
        {"image": base64.b64encode(b"no image").decode()},
        {"image": base64.b64encode(photograph()).decode(), "conf": 7},
    ):
        outcome = app.send_task("yolo.detect", kwargs=arguments)
        wait_until(outcome.ready, seconds=20, what="the task ends")
        assert outcome.state == "FAILURE"
        assert isinstance(outcome.result, InvalidTask)
    app.pool.force_close_all()
    app.close()
    assert client.get("/ready").status_code == 200


def test_flower_asks_for_its_password_on_all_but_two_paths(stack: Stack) -> None:
    """docs/deployment.md says which two; they are Flower's own exceptions."""
    port = free_port()
    flower = stack.spawn(
        "flower",
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "flower"),
        *(f"--port={port}", "--address=127.0.0.1"),
        FLOWER_BASIC_AUTH="ada:lovelace",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:

        def status(path: str) -> int:
            try:
                return client.get(path).status_code
            except httpx.TransportError:
                return 0

        wait_until(lambda: status("/healthcheck") == 200, seconds=30, what="Flower answers")
        closed = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/task/x")
        assert {path: status(path) for path in closed} == dict.fromkeys(closed, 401)
        assert status("/metrics") == 200
        assert client.post("/api/worker/shutdown/w0@test").status_code == 401
        assert client.get("/", auth=("ada", "lovelace")).status_code == 200
    flower.terminate()
    flower.wait(timeout=20)
