"""How much room the disk has that holds the accepted jobs, and a line for when it gets short."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

LOW_BYTES = 1 << 30
"""A few hundred large pictures. At times Redis rewrites its file, which needs room for a copy."""

QUIET_SECONDS = 60
MIB = 1 << 20


class DiskRoom:
    """The disk of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said_at = -math.inf
        self._said_bytes = math.inf

    def warning(self) -> str | None:
        """What to tell the user now, if anything: when little room is left, and again when half of
        that is gone, but once a minute at most."""
        free = shutil.disk_usage(self._folder).free
        if free >= LOW_BYTES:
            self._said_bytes = math.inf
            return None
        now = time.monotonic()
        if free >= self._said_bytes / 2 or now - self._said_at < QUIET_SECONDS:
            return None
        self._said_at, self._said_bytes = now, free
        return (
            f"Little room: the disk of {self._folder} has {free // MIB} MiB left; make some. When "
            "it is full, new jobs get 503 until there is room again; accepted ones are kept."
        )
