"""Builds the images of docker-compose.yml and of the Space, once for all tests."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.containers.base_images import provide
from tests.containers.compose import TAG, Project, configuration
from tests.containers.engine import Engine
from tests.support.machine import environment
from tests.support.stack import ROOT

API, WORKER, SPACE = (f"yolo-queue-{name}:{TAG}" for name in ("api", "worker", "space"))


def build(engine: Engine, folder: Path) -> None:
    """Build all, on images of other projects that are pulled or replaced."""
    torch = torch_backend()
    project = Project(engine, "yolo-queue-build", {"TORCH_BACKEND": torch})
    services = configuration(project, "monitoring")
    others = {one["image"] for one in services.values() if "build" not in one}
    if missing := provide(engine, python_base(), sorted(others)):
        print(f"not to be had here, and not tried: {', '.join(missing)}")
    space = folder / "space.yml"
    space.write_text(
        f"services: {{space: {{image: '{SPACE}', build: {{context: '{ROOT}', dockerfile: "
        f"deploy/space/Dockerfile, args: {{TORCH_BACKEND: '{torch}'}}}}}}}}"
    )
    for one in (project, Project(engine, "yolo-queue-build-space", files=[space], alone=True)):
        began = time.monotonic()
        one.compose("build")
        print(f"{one.name}: built in {time.monotonic() - began:.0f} s")


def python_base() -> str:
    text = (ROOT / "Dockerfile.api").read_text()
    (version,) = re.findall(r"ARG PYTHON_VERSION=(\S+)", text)
    (name,) = set(re.findall(r"FROM (python:\S+)", text))
    return name.replace("${PYTHON_VERSION}", version)


def torch_backend() -> str:
    """`cpu`, the default, where PyTorch's own index can be reached; else empty."""
    asked = subprocess.run(
        [
            *(Path(sys.executable).with_name("uv"), "pip", "install", "--dry-run", "--quiet"),
            *("--python", sys.executable, "--torch-backend", "cpu", "--no-deps", "--reinstall"),
            *("--constraint", ROOT / "constraints.txt", "torch"),
        ],
        env=environment(UV_HTTP_TIMEOUT="5", UV_HTTP_RETRIES="0"),
        capture_output=True,
        check=False,
    )
    return "cpu" if asked.returncode == 0 else ""


def size_mib(engine: Engine, image: str) -> float:
    return int(engine.docker("image", "inspect", "--format", "{{.Size}}", image)) / 2**20
