"""The wheel as a user of the client installs it: into an empty environment, without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.images import SAMPLES
from tests.support.stack import ROOT, Stack

UV = Path(sys.executable).with_name("uv")


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by way of an sdist, which leaves no build folder in the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    uv("build", "--no-build-isolation", "--python", sys.executable, "--out-dir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the new environment has `python` and `yolo-queue`."""
    environment = tmp_path_factory.mktemp("environment")
    python = environment / "bin" / "python"
    uv("venv", "--allow-existing", "--python", sys.executable, environment)
    uv("pip", "install", "--python", python, "--constraint", ROOT / "constraints.txt", wheel)
    return python.parent


def run(program: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
    )


def test_the_wheel_has_the_client_and_its_commands_alone(wheel: Path) -> None:
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == {
        "yolo_queue"
    }
    folders = {name.parts[1] for name in names if len(name.parts) > 2}
    assert folders == {"client", "cli", "licenses"}


def test_importing_the_client_loads_httpx_alone(programs: Path, tmp_path: Path) -> None:
    script = """if True:
        import sys
        from importlib.metadata import packages_distributions
        from yolo_queue import AsyncClient, Client
        owners = packages_distributions()
        loaded = {name.partition(".")[0] for name in sys.modules}
        print(*sorted({owner for name in loaded for owner in owners.get(name, ())}))
    """
    done = run(programs / "python", "-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"httpx", "yolo-queue"} <= loaded
    assert loaded <= {"httpx", "yolo-queue", "httpcore", "h11", "anyio", "certifi", "idna"}


def test_detect_and_a_script_reach_a_service(stack: Stack, programs: Path, tmp_path: Path) -> None:
    image = SAMPLES / "mixed.jpg"
    detect = run(
        *(programs / "yolo-queue", "detect", image, "--format", "json", "--url", stack.url),
        folder=tmp_path,
    )
    assert detect.returncode == 0, detect.stderr
    assert json.loads(detect.stdout)["detections"]
    script = """if True:
        import asyncio, sys
        from PIL import Image
        from yolo_queue import AsyncClient

        async def main(url, path):
            async with AsyncClient(url) as queue:
                job = await queue.predict(Image.open(path))
                await job.wait(timeout=60)
                print(*(found.name for found in job.detections))

        asyncio.run(main(*sys.argv[1:]))
    """
    done = run(programs / "python", "-c", script, stack.url, image, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()


@pytest.mark.parametrize("command", ["up", "settings --format env", "dead list", "dead"])
def test_commands_of_the_server_ask_for_a_checkout(
    programs: Path, tmp_path: Path, command: str
) -> None:
    done = run(programs / "yolo-queue", *command.split(), folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"`yolo-queue {command.split()[0]}` needs a checkout of the server")
    assert "make run" in line


def test_doctor_leaves_redis_out(stack: Stack, programs: Path, tmp_path: Path) -> None:
    done = run(programs / "yolo-queue", "doctor", "--url", stack.url, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Redis is not checked" in done.stdout
    assert "httpx" in done.stdout
    assert "All is well." in done.stdout
