"""Counts the CPU cores that this process may use: affinity mask and cgroup quota."""

from __future__ import annotations

import math
import os
from pathlib import Path


def allowed_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores allowed by the affinity mask and the cgroup quota (v2, then v1), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(cgroup)
    return max(1, min(cores or 1, math.ceil(quota) if quota else cores or 1))


def threads_per_process(processes: int) -> int:
    """Math threads for each of `processes` pool processes. N processes with N threads each on N
    cores are slower than one thread each (measured: docs/performance.md)."""
    return max(1, allowed_cores() // processes)


def _quota(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        micros = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
        return micros / period_us if micros > 0 else None
    except (OSError, ValueError):
        return None
