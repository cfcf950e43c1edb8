"""Sets a memory limit for some processes, as a container engine does. Needs root."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.stack import wait_until

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    folder: Path

    @property
    def join(self) -> tuple[str, ...]:
        """The command to put before one that has to run under the limit."""
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"))

    @property
    def peak_bytes(self) -> int:
        """The largest use at any time, caches included."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (self.folder / name).exists():
                return int((self.folder / name).read_text())
        return 0


def why_not() -> str:
    """Why no limit can be set here; empty if one can."""
    if os.geteuid() != 0:
        return "a cgroup needs root"
    return "" if _parent() else "this machine has no memory cgroups"


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryCgroup]:
    """A cgroup with that limit and without swap, removed once its processes have ended."""
    parent = _parent()
    assert parent is not None, why_not()
    folder = parent / f"yolo-queue-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (folder / name).exists():
                (folder / name).write_text(str(limit_bytes))
        yield MemoryCgroup(folder)
    finally:
        wait_until(lambda: _removed(folder), seconds=10, what="its processes have ended")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # its last processes are still ending
        return False
    return True


def _parent() -> Path | None:
    """Version 1's own tree, or version 2's if it hands the memory controller down."""
    if (_ROOT / "memory" / "memory.limit_in_bytes").exists():
        return _ROOT / "memory"
    control = _ROOT / "cgroup.subtree_control"
    if control.exists() and "memory" in control.read_text().split():
        return _ROOT
    return None
