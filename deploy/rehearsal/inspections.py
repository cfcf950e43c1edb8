# ruff: noqa: S607 - the machine's own tools, by name
"""Inspects a built root without starting anything: what is in it, what is not, and
how large it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.rehearsal.builder import Image

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "rustc", "go")
INSTALLERS = ("uv", "pip", "conda")
MIB = 1024 * 1024
DOCUMENTED_BASE_MIB = 125
"""python:3.11-slim-bookworm unpacked, as its publisher lists it."""


class Finding(Exception):
    """Something in a root that must not be there, or is missing."""


def no_packages(image: Image, *names: str) -> str:
    """None of these can be imported, because none is there."""
    found = [
        str(path.relative_to(image.root))
        for folder in image.root.glob("**/site-packages")
        for name in names
        if (path := folder / name).exists()
    ]
    return _none(found, f"no {', '.join(names)}")


def no_compiler(image: Image) -> str:
    """Neither a compiler nor an installer on PATH."""
    folders = [image.root / folder.lstrip("/") for folder in image.state.env["PATH"].split(":")]
    found = [
        str((folder / name).relative_to(image.root))
        for folder in folders
        for name in (*COMPILERS, *INSTALLERS)
        if (folder / name).exists()
    ]
    return _none(found, "no compiler, no installer")


def no_libgl(image: Image) -> str:
    """OpenCV's libraries find all they want, and libGL and X11 are not among it."""
    found = [str(path) for path in image.root.glob("**/libGL.so*")]
    (package,) = image.root.glob("opt/venv/lib/python*/site-packages/cv2")
    libraries = [*package.glob("*.so"), *package.parent.glob("opencv_python_headless.libs/*.so*")]
    if not libraries:
        raise Finding("there is no cv2 library to look at")
    inside = ["/" + str(path.relative_to(image.root)) for path in libraries]
    out = subprocess.run(
        ["chroot", str(image.root), "/usr/bin/ldd", *inside],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found += [
        line.strip()
        for line in out.splitlines()
        if "not found" in line or "libGL" in line or "libX11" in line
    ]
    return _none(found, f"no libGL.so.1 here or wanted by OpenCV's {len(libraries)} libraries")


def size_mib(path: Path) -> float:
    """Bytes on the disk below a path, hard links counted once."""
    out = subprocess.run(["du", "-sk", str(path)], capture_output=True, text=True, check=True)
    return int(out.stdout.split()[0]) / 1024


def sizes(image: Image, base: Path) -> str:
    """The image's size: what was measured, with the documented size of the real base."""
    added = size_mib(image.root) - size_mib(base)
    packages = size_mib(image.root / "opt/venv")
    return (
        f"{added:.0f} MiB added (packages {packages:.0f}); with the {DOCUMENTED_BASE_MIB} MiB of "
        f"the real base about {added + DOCUMENTED_BASE_MIB:.0f} MiB"
    )


def _none(found: list[str], claim: str) -> str:
    if found:
        raise Finding(f"{claim}: but there is {', '.join(found[:5])}")
    return claim
