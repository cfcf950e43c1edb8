"""Redis behind Sentinel: another server takes over, and the service goes on by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise
from tests.support.sentinels import PASSWORD, SENTINEL_PASSWORD, SentinelGroup
from tests.support.stack import Stack, free_port, wait_until

IMAGE = encoded(noise(40, 30), "PNG")
RECOVERY_SECONDS = {"killed": 10, "demoted": 10, "paused": 20}
"""After the fail-over. A server that is silent is known to be gone only when time is up: kombu's
checks of its connections take 5 to 15 s, from before the fail-over on."""


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path_factory.mktemp("sentinel")) as group:
        yield group


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, group: SentinelGroup) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        REDIS_URL=group.url,
        SIMULATED_MS="300",
        RATE_LIMIT="1000/second",
    ) as stack:
        stack.start_gateway()
        stack.workers = [stack.start_worker(app="tests.support.simulated_app")]
        stack.wait_ready(processes=2)
        yield stack


@pytest.fixture
def client(service: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def accepted(client: httpx.Client) -> str:
    """Send until it is accepted; what is said meanwhile must be 503."""

    def send() -> str:
        answer = client.post("/predict/", files={"file": IMAGE})
        assert answer.status_code in (201, 503), answer.text
        return str(answer.json()["task_id"]) if answer.status_code == 201 else ""

    return str(wait_until(send, seconds=10, what="the gateway accepts"))


def told_at_once(client: httpx.Client) -> bool:
    """Whether who waits is woken by the job's end, and not by the end of the wait."""
    task_id = accepted(client)
    begin = time.monotonic()
    job = client.get(f"/result/{task_id}", params={"wait": 20}).json()
    return bool(job["status"] == "completed" and time.monotonic() - begin < 5)


@pytest.mark.parametrize("how", ["demoted", "killed", "paused"])
def test_a_fail_over(group: SentinelGroup, service: Stack, client: httpx.Client, how: str) -> None:
    group.wait_replicated()
    assert told_at_once(client)
    before = [submit(client, IMAGE)["task_id"] for _ in range(12)]
    group.replicate()  # what is not, a fail-over loses
    old = group.primary()
    if how == "demoted":
        # Sentinel promotes the replica first, and demotes the primary seconds later. What that
        # one takes in between would be lost: it must refuse as soon as its replica has left it.
        with group.client(old) as primary:
            primary.config_set("min-replicas-to-write", 1)
        group.switch()
    else:
        group.signal_primary(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    new = group.wait_for_another(old)
    since = time.monotonic()
    fresh = accepted(client)
    assert wait_for(client, fresh, seconds=30)["status"] == "completed"
    took = time.monotonic() - since
    print(f"{how}: work flows {took:.1f} s after the fail-over")
    assert took < RECOVERY_SECONDS[how]
    # What was replicated is not lost; a job that ran at that moment waits for its lease to end.
    jobs = [wait_for(client, task_id, seconds=30) for task_id in before]
    assert {job["status"] for job in jobs} == {"completed"}
    wait_until(
        lambda: told_at_once(client), seconds=20, what="the end of a job wakes who waits for it"
    )
    service.wait_ready(processes=2, seconds=10)
    assert service.gateway.poll() is None
    assert service.workers[0].poll() is None
    if how == "killed":
        group.start_server(old, primary=new)
    elif how == "demoted":
        group.wait_replicated()  # only now has the old one been told
        with group.client(old) as replica:
            replica.config_set("min-replicas-to-write", 0)


def test_a_primary_that_must_not_write_is_away(group: SentinelGroup, client: httpx.Client) -> None:
    """`min-replicas-to-write`: cut off from its replicas, it refuses rather than lose."""
    with group.client(group.primary()) as primary:
        primary.config_set("min-replicas-to-write", 2)
        answer = client.post("/predict/", files={"file": IMAGE})
        primary.config_set("min-replicas-to-write", 0)
    assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
    assert told_at_once(client)


def test_the_commands_know_sentinel(service: Stack, client: httpx.Client) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**service.environment, "COLUMNS": "300"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "attempts" in run("yolo_queue.cli.main", "dead", "list")
    assert "pong" in run("celery", "-A", "worker.app", "inspect", "--timeout=5", "ping")
    answer = run("yolo_queue.cli.main", "doctor", "--url", service.url)
    assert "valkey" in answer
    assert PASSWORD not in answer
    assert SENTINEL_PASSWORD not in answer


def test_flower_sees_the_queue_behind_sentinel(group: SentinelGroup, service: Stack) -> None:
    port = free_port()
    flower = service.spawn(
        "flower",
        *(sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "flower"),
        *("--address=127.0.0.1", f"--port={port}", "--basic_auth=u:p"),
        # Its page of the broker asks the first sentinel alone, so that one has to be there.
        REDIS_URL=group.url_of(group.sentinels),
    )

    def seen() -> str:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/broker", auth=("u", "p"), timeout=10)
        except httpx.TransportError:
            return ""
        return answer.text if "yolo.demo.7" in answer.text else ""

    page = str(wait_until(seen, seconds=40, what="Flower lists the lanes"))
    assert "a%2Fb" not in page
    flower.terminate()
    assert flower.wait(timeout=20) == 0


def test_no_password_is_in_a_log(service: Stack) -> None:
    logs = service.logs()
    assert "connected" in logs.lower() or logs
    for secret in (PASSWORD, "a%2Fb", SENTINEL_PASSWORD, "sentinels+only"):
        assert secret not in logs
