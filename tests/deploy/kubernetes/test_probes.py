"""The probes of gateway and worker, those of a worker run as the kubelet would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time

import pytest

from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.deploy.kubernetes.conftest import Gateway
from tests.support.kubernetes import Object, Rendered, component, pod_spec, workloads
from tests.support.machine import PATH
from tests.support.stack import ROOT


def test_the_gateways_probes_ask_for_health_only(objects: list[Object]) -> None:
    (container,) = pod_spec(component(objects, "api"))["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@pytest.mark.anyio
async def test_without_a_worker_the_gateway_is_healthy_and_not_ready(
    gateway: Gateway, settings: Settings
) -> None:
    """Which is why its probes do not ask for `/ready`."""
    async with gateway(settings) as client:
        health, ready = await client.get("/health"), await client.get("/ready")
    assert (health.status_code, ready.status_code) == (200, 503)


def probe(rendered: Rendered, kind: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    (container,) = pod_spec(component(rendered["cpu"], "worker"))["containers"]
    asked = container[kind]
    assert asked["timeoutSeconds"] >= 10
    return subprocess.run(
        asked["exec"]["command"],
        cwd=ROOT,
        env={"PATH": PATH, "REDIS_URL": redis_url, "YOLO_QUEUE": "yolo"},
        capture_output=True,
        text=True,
        timeout=asked["timeoutSeconds"],
    )


def test_without_redis_a_worker_is_not_ready_but_lives(rendered: Rendered) -> None:
    nobody = "redis://127.0.0.1:1/0"
    assert probe(rendered, "readinessProbe", nobody).returncode == 1
    assert probe(rendered, "livenessProbe", nobody).returncode == 0


def test_a_redis_that_hangs_restarts_no_worker(rendered: Rendered) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert probe(rendered, "livenessProbe", url).returncode == 0


def test_a_worker_that_does_not_consume_is_restarted(
    rendered: Rendered, settings: Settings
) -> None:
    report = {"processes": 2, "loaded": 2, "ready": 2, "running": 0, "consuming": True}
    store, url = WorkerStore(settings), settings.redis_url.get_secret_value()
    name = f"celery@{socket.gethostname()}/{os.getpid()}"

    def beat(**changes: object) -> None:
        store.redis.hset("yolo:workers", name, json.dumps(report | changes))
        store.redis.zadd("yolo:workers-seen", {name: time.time() * 1000})

    try:
        assert probe(rendered, "livenessProbe", url).returncode == 1
        beat()
        assert probe(rendered, "livenessProbe", url).returncode == 0
        assert probe(rendered, "readinessProbe", url).returncode == 0
        beat(consuming=False, ready=0)
        gone = probe(rendered, "livenessProbe", url)
        assert gone.returncode == 1
        assert "does not take jobs" in gone.stdout
    finally:
        store.redis.close()


def test_probes_are_patient(objects: list[Object]) -> None:
    (worker,) = pod_spec(component(objects, "worker"))["containers"]
    start, live = worker["startupProbe"], worker["livenessProbe"]
    # The longest export (worker/model/runtimes.py) and the loading of a model.
    assert start["periodSeconds"] * start["failureThreshold"] >= 600 + 120
    assert live["periodSeconds"] * live["failureThreshold"] >= 300
    for workload in workloads(objects):
        for container in pod_spec(workload)["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[kind]["timeoutSeconds"] >= 2
