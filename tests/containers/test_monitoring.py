"""The profile `monitoring` with a real Prometheus: targets are up, alerts fire and stop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.compose import STARVED, Project
from tests.containers.engine import Engine
from tests.support.client import submit, wait_for
from tests.support.images import photograph
from tests.support.largest_pictures import largest_picture
from tests.support.stack import ROOT, wait_until

FOLDER = ROOT / "deploy" / "monitoring"
QUEUE_SECONDS = 60
"""MAX_QUEUE_SECONDS; jobs wait long after half of it."""
WINDOW_SECONDS = 30
"""In place of the alerts' minutes."""
ALERT_SECONDS = 120


@pytest.fixture
def monitored(engine: Engine, built: None, tmp_path: Path) -> Iterator[Project]:
    """One worker with little memory, and a Prometheus that is in a hurry."""
    files = {
        name: re.sub(r"\b15s\b", "1s", (FOLDER / name).read_text())
        for name in ("prometheus.yml", "alerts.yml")
    }
    files["alerts.yml"] = re.sub(r"for: \d+m", "for: 4s", files["alerts.yml"])
    files["alerts.yml"] = re.sub(r"\[\d+m\]", f"[{WINDOW_SECONDS}s]", files["alerts.yml"])
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {"MAX_QUEUE_SECONDS": str(QUEUE_SECONDS), "MAX_ATTEMPTS": "1"}
    mounted = [f"{tmp_path}/{name}:/etc/prometheus/{name}:ro" for name in files]
    overlay = tmp_path / "overlay.yml"
    overlay.write_text(
        json.dumps(
            {
                "services": {
                    "api": {"environment": environment},
                    "worker": {"environment": environment},
                    "prometheus": {"volumes": mounted},
                }
            }
        )
    )
    settings = {"WORKERS": "1", "WORKER_MEMORY": STARVED}
    with Project(engine, "yolo-queue-monitored", settings, [overlay]) as project:
        project.up("redis", "api", "worker", "prometheus")
        yield project


def ask(project: Project, path: str) -> dict[str, Any]:
    """Prometheus publishes no port; its own container asks it."""
    url = f"http://127.0.0.1:9090/api/v1/{path}"
    (prometheus,) = project.ids("prometheus")
    answer = json.loads(project.engine.docker("exec", prometheus, "wget", "-q", "-O", "-", url))
    data: dict[str, Any] = answer["data"]
    return data


def firing(project: Project) -> set[str]:
    return {
        alert["labels"]["alertname"]
        for alert in ask(project, "alerts")["alerts"]
        if alert["state"] == "firing"
    }


def test_targets_are_up_and_alerts_fire_and_stop(monitored: Project) -> None:
    def targets() -> list[str]:
        return [
            target["labels"]["job"]
            for target in ask(monitored, "targets")["activeTargets"]
            if target["health"] == "up"
        ]

    wait_until(
        lambda: sorted(targets()) == ["yolo-queue-api", "yolo-queue-worker"],
        seconds=60,
        what="both targets are up",
    )
    rules = [r for group in ask(monitored, "rules")["groups"] for r in group["rules"]]
    assert len(rules) == (FOLDER / "alerts.yml").read_text().count("- alert:")
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, rules
    assert firing(monitored) == set()

    def fires(*names: str) -> None:
        wait_until(
            lambda: set(names) <= firing(monitored), seconds=ALERT_SECONDS, what=f"{names} fire"
        )

    def stop(*names: str) -> None:
        wait_until(
            lambda: not set(names) & firing(monitored), seconds=ALERT_SECONDS, what=f"{names} stop"
        )

    with monitored.client() as client:
        job = submit(client, largest_picture("PNG 16 bits with alpha, 50 megapixels"))["task_id"]
        assert wait_for(client, job, seconds=120)["error"]["code"] == "worker_lost"
        fires("YoloQueueDeadLetters")
        stop("YoloQueueDeadLetters")

        monitored.up("--scale", "worker=0", "--no-recreate", "worker")
        waiting = submit(client, photograph())["task_id"]
        fires("YoloQueueNoWorkerReady", "YoloQueueJobsWaitLong")
        monitored.up("--scale", "worker=1", "--no-recreate", "worker")
        wait_for(client, waiting, seconds=120)
        stop("YoloQueueNoWorkerReady", "YoloQueueJobsWaitLong")


def test_alerts_fire_and_stop_at_their_own_times(engine: Engine, built: None) -> None:
    """Prometheus' own test of rules, with the times that alerts.yml has."""
    image = re.findall(r"prom/prometheus:[\w.]+", (ROOT / "docker-compose.yml").read_text())[0]
    said = engine.docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "promtool"),
        *("--volume", f"{FOLDER}/alerts.yml:/etc/prometheus/alerts.yml:ro"),
        *("--volume", f"{Path(__file__).with_name('alerts_test.yml')}:/tests.yml:ro"),
        *(image, "test", "rules", "/tests.yml"),
    )
    assert "SUCCESS" in said
