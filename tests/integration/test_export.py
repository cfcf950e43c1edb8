"""Exports: their arguments, the cache that keeps them, and what happens if one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.settings import Settings
from tests.support.stack import DEMO_MODEL
from worker.model import export
from worker.model.export import FORMATS, export_arguments
from worker.model.runtimes import ServedModel, _folder_name, prepare
from worker.model.weights import be_quiet_and_offline, version_of


def folder_name(runtime: str, **more: Any) -> str:
    arguments = export_arguments(runtime, Settings(**more))
    return _folder_name(DEMO_MODEL, version_of(DEMO_MODEL), runtime, arguments)


def test_a_tensorrt_engine_takes_batches_in_half_precision() -> None:
    assert export_arguments("tensorrt", Settings(micro_batch_jobs=8)) == {
        "format": "engine",
        "dynamic": True,
        "batch": 8,
        "quantize": 16,
    }
    assert export_arguments("tensorrt", Settings(yolo_precision="f32")) == {
        "format": "engine",
        "dynamic": True,
        "batch": 1,
    }


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_one_export_for_a_cpu_serves_with_all_settings(runtime: str) -> None:
    name = folder_name(runtime)
    assert name == folder_name(runtime, micro_batch_jobs=8, yolo_precision="f32")


def test_an_engine_is_exported_anew_for_another_batch_or_precision() -> None:
    names = {
        folder_name("tensorrt", micro_batch_jobs=jobs, yolo_precision=precision)
        for jobs in (1, 8)
        for precision in ("auto", "f32")
    }
    assert len(names) == 4
    assert any(name.endswith("-batch-8-quantize-16") for name in names)


@pytest.mark.parametrize(
    ("packages", "half"),
    [
        ({"tensorrt": "10.13.3.9"}, True),
        ({"tensorrt": "11.0.0.1"}, False),
        ({"tensorrt": "11.0.0.1", "nvidia-modelopt": "0.44.0"}, True),
    ],
)
def test_half_precision_where_tensorrt_can_build_it(
    packages: dict[str, str],
    half: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(export, "installed", lambda package: packages.get(package, ""))
    assert ("quantize" in export_arguments("tensorrt", Settings())) == half
    assert ("nvidia-modelopt" in caplog.text) != half


@pytest.mark.parametrize("runtime", FORMATS)
def test_ultralytics_accepts_the_arguments(runtime: str) -> None:
    be_quiet_and_offline()
    from ultralytics.cfg import DEFAULT_CFG, get_cfg
    from ultralytics.engine.exporter import export_formats, validate_args

    arguments = export_arguments(runtime, Settings(micro_batch_jobs=8))
    table = export_formats()
    valid = dict(zip(table["Argument"], table["Arguments"], strict=True))[arguments["format"]]
    assert arguments.keys() - {"format"} <= set(valid)
    validate_args(arguments["format"], get_cfg(DEFAULT_CFG, arguments), valid)


def test_the_exporter_applies_an_engine_s_arguments() -> None:
    """On the CPU the exporter does everything except build the engine, which it then refuses."""
    be_quiet_and_offline()
    from ultralytics import YOLO
    from ultralytics.engine.exporter import Exporter

    arguments = export_arguments("tensorrt", Settings(micro_batch_jobs=3))
    exporter = Exporter(overrides={**arguments, "device": "cpu", "imgsz": 64, "mode": "export"})
    with pytest.raises(AssertionError, match="must be on GPU"):
        exporter(model=YOLO(DEMO_MODEL, verbose=False).model)
    assert exporter.im.shape[0] == 3
    assert exporter.metadata["batch"] == 3
    assert exporter.metadata["args"] == {**exporter.metadata["args"], "quantize": 16}


def test_many_processes_export_once(tmp_path: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level=20);"
        "from shared.settings import Settings; from worker.model.runtimes import prepare;"
        "print(prepare(Settings()).path)"
    )
    environment = {
        "YOLO_MODEL": str(DEMO_MODEL),
        "YOLO_RUNTIME": "openvino",
        "MODEL_CACHE_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            cwd=DEMO_MODEL.parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outcomes
    assert len({out for out, _ in outcomes}) == 1
    assert sum("exporting" in err for _, err in outcomes) == 1


def test_auto_falls_back_and_says_so_but_a_named_runtime_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a model")
    settings = Settings(
        yolo_model=str(broken), yolo_device="cpu", model_cache_dir=str(tmp_path / "cache")
    )
    assert prepare(settings) == ServedModel("broken", broken, "torch", broken, version_of(broken))
    assert "serving broken with PyTorch" in caplog.text
    with pytest.raises(ModelUnavailable, match="cannot be exported"):
        prepare(settings.model_copy(update={"yolo_runtime": "openvino"}))
    with pytest.raises(ModelUnavailable, match="pip install"):
        prepare(settings.model_copy(update={"yolo_runtime": "tensorrt"}))
