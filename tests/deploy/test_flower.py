"""`make run`, Compose and Kubernetes start Flower with the same command."""

from __future__ import annotations

from pathlib import Path

import yaml

from shared.settings import Settings
from tests.support.stack import ROOT
from yolo_queue.server.services import flower_command


def test_compose_and_kubernetes_start_flower_as_make_run_does() -> None:
    folder = Path("/var/lib/flower")
    _, *arguments = flower_command(Settings(host="0.0.0.0", flower_port=5555), folder)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["flower"]
    manifest = ROOT / "deploy/kubernetes/components/flower/flower.yaml"
    (pod,) = (
        one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(manifest.read_text())
        if one["kind"] == "Deployment"
    )
    (container,) = pod["containers"]
    assert compose["command"] == container["command"] == ["python", *arguments]
    assert f"flower-data:{folder}" in compose["volumes"]
    assert "--max_tasks=10000" in arguments
