# ruff: noqa: S607 - the machine's own tools, by name
"""Runs a rehearsal: build, look, start, try, stop, tidy up; one line a step."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from deploy.rehearsal import inspections, scenes
from deploy.rehearsal.base_image import make_base
from deploy.rehearsal.build_context import BuildContext
from deploy.rehearsal.builder import Builder, Image
from deploy.rehearsal.containers import left_in
from deploy.rehearsal.package_index import index_binds, index_env, uv_cache
from deploy.rehearsal.service import Trial, leave_the_network

FILES = {"api": "Dockerfile.api", "worker": "Dockerfile.worker", "space": "deploy/space/Dockerfile"}
NEEDED_GIB = 10
TAIL_LINES = 40

HONESTY = """\
What is rehearsed is not the image itself: the base is Debian bookworm with Debian's Python 3.11
instead of python:3.11-slim-bookworm, and an engine's own work (layers, cgroup limits, bridge
networks, seccomp) is left out.
{torch}"""
ORDINARY_TORCH = """\
PyTorch is the package index's own build (TORCH_BACKEND= and no name), since PyTorch's own index is
not asked here: 6 GB with CUDA's libraries, where the image has the CPU build: a fraction."""


class Course:
    """Performs steps and says how each went."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log

    def step(self, name: str, action: Callable[[], object]) -> object:
        """One line: how long, what, and what the action has to say of it."""
        self._log.write(f"\n=== {name}\n".encode())
        self._log.flush()
        began = time.monotonic()
        result = action()
        said = f": {result}" if isinstance(result, str) else ""
        line = f"{time.monotonic() - began:6.1f} s  {name}{said}"
        self._log.write(f"{line}\n".encode())
        self._log.flush()
        print(line, flush=True)
        return result


def main(root: Path, arguments: list[str]) -> int:
    """Returns 0 if everything that was asked for was seen to work."""
    options = _parse(arguments)
    if problem := _unfit():
        print(f"rehearse: {problem}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that `finally` tidies up
    folder = Path(tempfile.mkdtemp(prefix="yolo-queue-rehearsal-", dir=options.folder))
    free_gib = shutil.disk_usage(folder).free / 2**30
    log_path = folder / "rehearsal.log"
    trial = Trial(folder, root / "models/samples")
    passed = False
    began = time.monotonic()
    try:
        with log_path.open("ab") as log:
            if free_gib < NEEDED_GIB:
                raise OSError(f"{folder} has {free_gib:.0f} GiB free, {NEEDED_GIB} are needed")
            _rehearse(root, options, folder, trial, Course(log), log)
        passed = True
    except KeyboardInterrupt:
        print("interrupted")
    except Exception as error:
        print(f"\nrehearse: {type(error).__name__}: {error}", file=sys.stderr)
        _show_logs(folder)
    finally:
        trial.end()
        if left := left_in(folder):
            print(f"still running, ended now: {left}", file=sys.stderr)
            passed = False
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if options.keep:
            print(f"kept: {folder}")
        else:
            _remove(folder)
    print(f"{time.monotonic() - began:6.1f} s  in all: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/rehearse")
    parser.add_argument("names", nargs="*", help="of: api worker space (default: api worker)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where to build")
    parser.add_argument(
        "--torch-backend",
        default="",
        help="the images' TORCH_BACKEND; default: empty, the package index's own build",
    )
    parser.add_argument("--keep", action="store_true", help="keep roots and logs")
    options = parser.parse_args(arguments)
    options.names = options.names or ["api", "worker"]
    for name in options.names:
        if name not in FILES:
            parser.error(f"{name} is none of {', '.join(FILES)}")
    if ("api" in options.names) != ("worker" in options.names):
        parser.error("api and worker are tried together: name both or neither")
    return options


def _unfit() -> str:
    """Why this machine cannot do it, or an empty text."""
    if os.geteuid():
        return "needs root, to make chroots and mounts"
    for tool in ("debootstrap", "unshare", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            return f"needs {tool}: apt-get install debootstrap util-linux"
    return ""


def _rehearse(
    root: Path,
    options: argparse.Namespace,
    folder: Path,
    trial: Trial,
    course: Course,
    log: IO[bytes],
) -> None:
    torch = f"TORCH_BACKEND={options.torch_backend}." if options.torch_backend else ORDINARY_TORCH
    print(HONESTY.format(torch=torch), flush=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "yolo-queue-rehearsal"
    base = folder / "base"
    course.step("base: Debian bookworm", lambda: make_base(folder, cache, log) and None)
    builder = Builder(
        BuildContext(root),
        base,
        folder,
        log,
        network_env=index_env(),
        network_binds=index_binds(),
        caches=lambda target: uv_cache(),
    )
    images: dict[str, Image] = {}
    for name in options.names:
        args = {} if name == "api" else {"TORCH_BACKEND": options.torch_backend}
        file = root / FILES[name]

        def build(name: str = name, file: Path = file, args: dict[str, str] = args) -> None:
            images[name] = builder.build(file, args)

        course.step(f"{FILES[name]}: every step performed", build)
        course.step(f"{name}: size", partial(inspections.sizes, images[name], base))
        course.step(f"{name}: tools", partial(inspections.no_compiler, images[name]))
    leave_the_network()
    if "api" in images:
        scenes.inspect(course.step, images["api"], images["worker"])
        scenes.try_service(course.step, trial, images["api"], images["worker"])
        scenes.try_flower(course.step, trial, images["worker"], root / "docker-compose.yml")
        trial.stop_redis()
    if "space" in images:
        scenes.try_space(course.step, trial, images["space"])


def _show_logs(folder: Path) -> None:
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        print(f"\n--- {path.name}", *lines, sep="\n", file=sys.stderr)


def _remove(folder: Path) -> None:
    """Never through a mount: all were in namespaces of their own, and if one is here after all, the
    folder stays."""
    mounts = Path("/proc/self/mountinfo").read_text()
    if str(folder) in mounts:
        print(f"not removed, something is mounted in it: {folder}", file=sys.stderr)
        return
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)
