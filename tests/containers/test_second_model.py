"""Two models behind one gateway, each with workers of its own: deploy/second-model.yml."""

from __future__ import annotations

from pathlib import Path

from tests.containers.compose import Project
from tests.containers.engine import Engine
from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.models import renamed_model
from tests.support.stack import DEMO_MODEL, ROOT

NAMES = {0: "square", 1: "stripes", 2: "grid"}


def test_each_model_has_workers_of_its_own(engine: Engine, built: None, tmp_path: Path) -> None:
    renamed_model(DEMO_MODEL, tmp_path / "shapes.pt", NAMES).chmod(0o644)
    tmp_path.chmod(0o755)
    settings = {
        "WORKERS": "1",
        "SECOND_MODEL": "shapes",
        "SECOND_WEIGHTS": "shapes.pt",
        "WEIGHTS_DIR": str(tmp_path),
    }
    file = ROOT / "deploy" / "second-model.yml"
    with Project(engine, "yolo-queue-two-models", settings, [file]) as project:
        project.up()
        with project.client() as client:
            models = {model["name"]: model for model in client.get("/models").json()["models"]}
            assert {name: model["ready_processes"] for name, model in models.items()} == {
                "demo": 1,
                "shapes": 1,
            }
            assert models["demo"]["default"]
            first, second = (
                wait_for(client, submit(client, sample(), **query)["task_id"], seconds=60)
                for query in ({}, {"model": "shapes"})
            )
        assert {found["name"] for found in second["detections"]} == set(NAMES.values())
        assert (first["model"], second["model"]) == ("demo", "shapes")
        assert {found["class"] for found in first["detections"]} == set(NAMES)
        ((own,), (other,)) = (model["versions"] for model in models.values())
        assert own["workers"] != other["workers"]
