"""A Redis that refuses writes: no process of the service ends, and no job is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import httpx
import pytest
import redis

from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("refusing")
    with Stack(folder, WORKER_CONCURRENCY="1") as running:
        yield running.start()


def said(service: Stack, text: str, times: int = 1) -> None:
    wait_until(lambda: service.logs().count(text) >= times, seconds=30, what=f"it says: {text}")


def test_a_full_redis_ends_no_process(service: Stack) -> None:
    (worker,) = service.workers
    with (
        redis.Redis(port=service.redis.port) as store,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        # A free process gets a message when Redis has become full.
        os.kill(worker.pid, signal.SIGSTOP)
        task_id = submit(client, sample())["task_id"]
        store.config_set("maxmemory", 1)
        os.kill(worker.pid, signal.SIGCONT)
        said(service, "Redis is unavailable")
        # Its connections break, and a process is replaced.
        store.client_kill_filter(_type="normal", skipme=True)
        store.client_kill_filter(_type="pubsub", skipme=True)
        for pid in pool_pids(worker):
            os.kill(pid, signal.SIGKILL)
        said(service, "has loaded its model", times=2)
        assert worker.poll() is None, service.logs()[-4000:]

        store.config_set("maxmemory", 0)
        assert wait_for(client, task_id, seconds=60)["status"] == "completed"
        service.wait_ready(processes=1)
        assert wait_for(client, submit(client, sample())["task_id"])["status"] == "completed"
        assert worker.poll() is None


def test_a_redis_that_became_a_replica_is_unavailable(service: Stack) -> None:
    """As with a full disk: it reads, and writes nothing."""
    (worker,) = service.workers
    with (
        redis.Redis(port=service.redis.port) as store,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        store.replicaof("127.0.0.1", 1)
        answer = client.post("/predict/", files={"file": sample()})
        assert answer.status_code == 503, answer.text
        assert "refuses writes" in answer.json()["detail"]
        assert answer.json()["retryable"]
        said(service, "Connection to broker lost")
        assert worker.poll() is None, service.logs()[-4000:]
        store.replicaof("NO", "ONE")
        service.wait_ready(processes=1)
        assert wait_for(client, submit(client, sample())["task_id"])["status"] == "completed"
        assert worker.poll() is None
