from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.errors import InvalidSettings
from shared.settings import ModelSource, Settings, load_settings
from worker.process.cores import allowed_cores, threads_per_process


def test_the_environment_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULT_TTL_SECONDS", "7")
    monkeypatch.setenv("API_KEYS", "one, two,")
    settings = Settings()
    assert settings.result_ttl_seconds == 7
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("MAX_ATTEMPTS", "0"),
        ("RATE_LIMIT", "ten a day"),
        ("LEASE_SECONDS", "60"),
        ("YOLO_RUNTIME", "abacus"),
        ("YOLO_QUEUE", "no spaces"),
        ("REDIS_URL", "host:6379"),
        ("DEFAULT_MODEL", "no spaces"),
    ],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower() if name != "LEASE_SECONDS" else name):
        Settings()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"YOLO_MODEL_SHA256": "abc"}, "YOLO_MODEL_SHA256: a SHA-256 has 64"),
        ({"YOLO_MODELS": "a.pt"}, "YOLO_MODELS: 'a.pt' is not `name=value`"),
        ({"YOLO_MODELS": "a=b.pt,a=c.pt"}, "YOLO_MODELS: a is there twice"),
        ({"YOLO_MODELS": "a b=c.pt"}, "'a b' cannot be a model's name"),
        ({"YOLO_MODELS": "a=b.pt", "YOLO_MODEL_SHA256": "a=abc"}, "has 64 hexadecimal digits"),
        ({"YOLO_MODELS": "a=b.pt", "YOLO_MODEL_SHA256": "0" * 64}, "is not `name=value`"),
    ],
)
def test_what_is_wrong_with_models_is_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=words):
        load_settings()


def test_models_have_names() -> None:
    digest = "0" * 64
    several = Settings(
        yolo_models="coco = yolov8n.pt, codes=models/demo.pt", yolo_model_sha256=f"codes={digest}"
    )
    assert several.models == {
        "coco": ModelSource("yolov8n.pt", ""),
        "codes": ModelSource("models/demo.pt", digest),
    }
    shared = Settings(yolo_model="a/coco.pt", yolo_model_sha256=f"coco={digest},codes={digest}")
    assert shared.models == {"coco": ModelSource("a/coco.pt", digest)}, "as other workers have it"
    assert Settings(yolo_model="a/coco.pt", yolo_model_sha256=digest).models == shared.models
    for weights, name in (
        ("models/demo.pt", "demo"),
        ("best.v2.pt", "best.v2"),
        ("/a/b_openvino_model", "b_openvino_model"),
        ("my model (1).pt", "my-model-1-"),
        ("_.pt", "model"),
    ):
        assert Settings(yolo_model=weights).models == {name: ModelSource(weights, "")}


def test_settings_are_frozen_and_hide_secrets() -> None:
    settings = Settings(api_keys=("hush",), redis_url="redis://:hidden@host:1/0")
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    assert "hush" not in repr(settings)
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.masked_redis_url()


def test_cores_follow_the_cgroup_quota(tmp_path: Path) -> None:
    assert allowed_cores(tmp_path) >= 1
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert allowed_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000")
    assert allowed_cores(tmp_path) == allowed_cores(tmp_path / "none")


def test_threads_per_process_is_never_zero() -> None:
    assert threads_per_process(1) == allowed_cores()
    assert threads_per_process(1000) == 1


def test_the_settings_table_is_up_to_date() -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    from yolo_queue.server.settings_table import settings as print_table

    out = StringIO()
    with redirect_stdout(out):
        print_table()
    table = Path(__file__).parents[2] / "docs" / "settings.md"
    assert table.read_text() == out.getvalue(), (
        "run: .venv/bin/yolo-queue settings > docs/settings.md"
    )


@pytest.mark.parametrize(
    "command",
    [
        ("api",),
        ("celery", "-A", "worker.app", "worker"),
        ("worker.health",),
        ("yolo_queue.cli.main", "up"),
        ("yolo_queue.cli.main", "doctor"),
        ("yolo_queue.cli.main", "dead", "list"),
    ],
    ids=" ".join,
)
def test_a_wrong_setting_is_one_line_of_words(command: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "RESULT_TTL_SECONDS": "soon", "REDIS_URL": "redis://:secret@h:x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "RESULT_TTL_SECONDS: Input should be a valid integer" in said
    assert "REDIS_URL: " in said, "all that is wrong, at once"
    assert "secret" not in said
    assert "Traceback" not in said
