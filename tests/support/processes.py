"""Reads from /proc what processes of this machine use: CPU time, memory, open files, threads."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path


def pool_pids(worker: subprocess.Popen[bytes]) -> list[int]:
    """Pids of a worker's pool processes."""
    pids: list[int] = []
    for thread in Path(f"/proc/{worker.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            pids += map(int, (thread / "children").read_text().split())
    return pids


def cpu_seconds(*pids: int) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    """Open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def resident_mib(pid: int) -> float:
    """Resident size of one process: all pages that it touches."""
    return _mib(pid, "status")["VmRSS"]


def peak_resident_mib(pid: int) -> float:
    """The largest resident size that the process has had."""
    return _mib(pid, "status")["VmHWM"]


def mapped_mib(pid: int) -> dict[str, float]:
    """`rss`: resident size. `shared`: the part that other processes have as well. `pss`:
    proportional size, in which a shared page is divided among its users, so that the sum over a
    worker's processes is the memory that they take."""
    sizes = _mib(pid, "smaps_rollup")
    return {
        "rss": sizes["Rss"],
        "shared": sizes["Shared_Clean"] + sizes["Shared_Dirty"],
        "pss": sizes["Pss"],
    }


def anonymous_mib(pid: int) -> float:
    """The proportional size without mapped files. Other services map the same libraries, and the
    share of this process in them changes with what else runs on the machine."""
    return _mib(pid, "smaps_rollup")["Pss_Anon"]


def _mib(pid: int, file: str) -> dict[str, float]:
    """The sizes in a file of lines such as `VmRSS:   1024 kB`."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.removesuffix(":"): int(kib) / 1024 for name, kib, _ in sizes}
