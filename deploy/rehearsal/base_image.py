# ruff: noqa: S607 - the machine's own tools, by name
"""Makes a stand-in for `python:3.x-slim-bookworm`: bookworm with Debian's own Python 3.11.

The difference: Debian's Python is /usr/bin/python3.11, a patched 3.11.2, where the image has the
version that the Dockerfile names, compiled into /usr/local. Libraries, users and tools are bookworm
in both. What a wheel needs from the system is therefore tested; Python's patch level is not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

PACKAGES = "python3,python3-venv,ca-certificates"
SUITE = "bookworm"
BOOTSTRAP_SECONDS = 900


def make_base(folder: Path, cache: Path, log: IO[bytes]) -> Path:
    """The base's root in `folder`, unpacked from `cache` after the first time."""
    archive = cache / f"{SUITE}.tar"
    root = folder / "base"
    root.mkdir()
    if archive.exists():
        subprocess.run(["tar", "-xf", archive, "-C", root], check=True, stdout=log, stderr=log)
        return root
    subprocess.run(
        # In a mount namespace: an interrupted debootstrap leaves /proc mounted in its target.
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)),
        ],
        check=True,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        timeout=BOOTSTRAP_SECONDS,
    )
    for name in ("python", "python3"):  # where the image has its Python
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    for leftover in ("var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/locale"):
        subprocess.run(["rm", "-rf", root / leftover], check=True)
    cache.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(".part")
    subprocess.run(["tar", "-cf", part, "-C", root, "."], check=True, stdout=log, stderr=log)
    part.replace(archive)
    return root
