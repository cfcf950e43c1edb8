"""`LOG_FORMAT=json`: every line that gateway and worker log is an object."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample, undecodable
from tests.support.poison import poison
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until

WEBHOOKS = {
    "WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode(),
    "WEBHOOK_ALLOW_PRIVATE": "true",
}


@pytest.fixture(scope="module")
def logging_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("logs"), LOG_FORMAT="json", **WEBHOOKS) as stack:
        stack.start(workers=0)
        # As the README says it, not quiet, and with what the chaos images do.
        stack.workers = [
            stack.spawn("worker", sys.executable, "-m", "celery", "-A", "tests.chaos.app", "worker")
        ]
        stack.wait_ready(processes=2)
        yield stack


NOT_LOGGED = ("worker: ", "Corrupt JPEG data", "libpng ")
"""How lines begin that Celery and native libraries print without logging them."""


def lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    found = []
    for line in stack.log(name).read_text().splitlines():
        if line and not line.startswith(NOT_LOGGED):
            assert line.startswith("{"), f"not JSON: {line!r}"
            found.append(json.loads(line))
    return found


def corrupt_jpeg() -> bytes:
    """A sound header and end over rubbish: libjpeg has something to say about it on its own."""
    data = bytearray(encoded(noise(200, 200), "JPEG"))
    data[1500:-200] = bytes(7) * ((len(data) - 1700) // 7) + bytes((len(data) - 1700) % 7)
    return bytes(data)


def test_every_line_is_json_and_knows_its_job(logging_stack: Stack) -> None:
    stack = logging_stack
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        jobs = {
            "good": submit(client, sample()),
            "broken": submit(client, undecodable(1)),
            "corrupt": submit(client, corrupt_jpeg()),
            "raise": submit(client, poison("raise")),
            "hooked": submit(client, sample(), webhook_url="http://127.0.0.1:9/"),
        }
        ended = {name: wait_for(client, job["task_id"], seconds=60) for name, job in jobs.items()}
        killing = submit(client, encoded(noise(6000, 5000), "JPEG", quality=60))
        running = f"/result/{killing['task_id']}"
        wait_until(
            lambda: client.get(running).json()["status"] == "processing",
            seconds=10,
            what="it is being worked on",
        )
        for pid in pool_pids(stack.workers[0]):
            os.kill(pid, signal.SIGKILL)
        ended["killed"] = wait_for(client, killing["task_id"], seconds=60)
        stack.wait_ready(processes=2)
    for process in (stack.gateway, stack.workers[0]):
        process.terminate()
        process.wait(timeout=30)

    gateway, worker = lines(stack, "api"), lines(stack, "worker")
    for line in gateway + worker:
        assert {"time", "level", "logger", "message"} <= line.keys()
    told = {name: [line for line in worker if line.get("task_id") == job["task_id"]]
            for name, job in ended.items()}  # fmt: skip
    messages = {name: " | ".join(line["message"] for line in of) for name, of in told.items()}
    assert "completed: " in messages["good"]
    assert "failed: image_undecodable" in messages["broken"]
    assert messages["raise"].count("unexpected error") == 3
    assert all("RuntimeError: poison" in line["exception"] for line in told["raise"]
               if line["message"] == "unexpected error")  # fmt: skip
    assert "attempt abandoned (worker_lost): requeued" in messages["killed"]
    assert "WorkerLostError" in messages["killed"]
    # No line about a job without its id.
    for line in worker:
        about_a_job = ("completed: ", "failed: ", "unexpected error", "attempt ", "Task handler")
        if line["message"].startswith(about_a_job):
            assert line.get("task_id"), line

    assert any("shutting down" in line["message"].lower() for line in gateway)
    about_webhook = [line for line in gateway if "webhook" in line["message"]]
    assert {line["task_id"] for line in about_webhook} == {ended["hooked"]["task_id"]}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"YOLO_MODEL": "/nowhere/best.pt"}, "/nowhere/best.pt is not there"),
        ({"YOLO_DEVICE": "cuda:7"}, "does not load on cuda:7"),
    ],
)
def test_a_failed_start_logs_json_too(
    logging_stack: Stack, environment: dict[str, str], message: str
) -> None:
    name = f"worker-{next(iter(environment)).lower()}"
    worker = logging_stack.spawn(
        name, sys.executable, "-m", "celery", "-A", "worker.app", "worker", **environment
    )
    assert worker.wait(timeout=60) != 0
    said = logging_stack.log(name).read_text().splitlines()
    logged = [json.loads(line) for line in said if line.startswith("{")]
    assert [line for line in logged if message in line["message"]]
