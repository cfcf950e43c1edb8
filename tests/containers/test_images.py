# ruff: noqa: S108 - paths in a container
"""What is in the images, and what a worker's image can do by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.containers.engine import Engine, EngineError
from tests.containers.images import API, SPACE, WORKER, python_base, size_mib
from tests.support.images import SAMPLES
from tests.support.models import random_model
from tests.support.stack import DEMO_MODEL

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "rustc", "go")
INSTALLERS = ("uv", "pip", "conda")
CONFIGURATIONS = ("yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls")
DETECT = """
import sys
from pathlib import Path
from shared.job.record import DetectParameters
from shared.settings import Settings
from worker.model.detector import Detector
from worker.model.images import decode
from worker.model.runtimes import prepare

for runtime in ("openvino", "torch"):
    for weights in sorted(Path("/weights").glob("*.pt")):
        settings = Settings(yolo_model=str(weights), yolo_runtime=runtime)
        detector = Detector(settings, prepare(settings))
        picture = decode(
            Path("/picture.jpg").read_bytes(), max_pixels=settings.max_image_pixels, min_side=640
        )
        found = detector.predict(picture, DetectParameters()).detections
        print(detector.served.runtime, weights.stem, detector.task, len(found))
"""

each_image = pytest.mark.parametrize("image", [API, WORKER, SPACE])


@pytest.fixture(autouse=True)
def _built(built: None) -> None:
    """All of these tests look at images."""


def run(engine: Engine, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return engine.docker("run", "--rm", "--network", "none", *options, image, *command)


@each_image
def test_there_is_neither_a_compiler_nor_an_installer(engine: Engine, image: str) -> None:
    look = "for name in $@; do command -v $name; done; true"
    assert run(engine, image, "sh", "-c", look, "sh", *COMPILERS, *INSTALLERS) == ""


@each_image
def test_it_is_nobody_of_note(engine: Engine, image: str) -> None:
    assert int(run(engine, image, "id", "-u")) >= 1000


def test_the_gateway_cannot_decode_pictures(engine: Engine) -> None:
    for name in ("torch", "cv2", "numpy", "PIL", "ultralytics", "openvino", "celery"):
        with pytest.raises(EngineError, match="ModuleNotFoundError"):
            run(engine, API, "python", "-c", f"import {name}")


def test_opencv_wants_no_display(engine: Engine) -> None:
    """Headless OpenCV finds all that it wants, and libGL and X11 are not among it."""
    look = "find / -name 'libGL.so*' 2>/dev/null; ldd /opt/venv/lib/python3*/site-packages/cv2/*.so"
    libraries = run(engine, WORKER, "sh", "-c", look)
    assert "libc.so" in libraries
    for name in ("not found", "libGL", "libX11"):
        assert name not in libraries, libraries


def test_mounted_weights_of_every_task_are_exported_and_run(engine: Engine, tmp_path: Path) -> None:
    """Without the packages of deploy/image-excludes.txt, with OpenVINO and with PyTorch."""
    tmp_path.chmod(0o755)  # the container's user is another
    for name in CONFIGURATIONS:
        random_model(f"{name}.yaml", tmp_path).rename(tmp_path / f"{name}.pt")
    shutil.copy(DEMO_MODEL, tmp_path / "mine.pt")
    said = run(
        *(engine, WORKER, "python", "-c", DETECT),
        options=(
            *("--read-only", "--tmpfs", "/tmp:mode=1777", "--volume", f"{tmp_path}:/weights:ro"),
            *("--volume", f"{SAMPLES / 'mixed.jpg'}:/picture.jpg:ro"),
        ),
    )
    ran = [line.split() for line in said.splitlines() if line.startswith(("openvino", "torch"))]
    tasks = {(runtime, task) for runtime, _, task, _ in ran}
    assert tasks == {
        (runtime, task)
        for runtime in ("openvino", "torch")
        for task in ("detect", "segment", "pose", "obb", "classify")
    }, said
    found = {int(count) for _, name, _, count in ran if name == "mine"}
    assert len(found) == 1, said
    assert found.pop() > 0


def test_sizes(engine: Engine) -> None:
    """For docs/deployment.md, which has the figures with the base that they were measured on."""
    base = size_mib(engine, python_base())
    for image in (API, WORKER, SPACE):
        size = size_mib(engine, image)
        print(f"{image}: {size:,.0f} MiB, {size - base:,.0f} of it on top of its base")
        assert size > base
