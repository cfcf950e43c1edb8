"""Warns when the disk that holds the accepted jobs has little free space."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

LOW_BYTES = 1 << 30
"""Enough for a few hundred large images. Redis also needs space to rewrite its file at times."""

WARNING_INTERVAL_SECONDS = 60
MIB = 1 << 20


class DiskSpace:
    """The free space on the disk of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._warned_at = -math.inf
        self._warned_bytes = math.inf

    def warning(self) -> str | None:
        """What to tell the user now: a warning when the space gets low, another whenever half of it
        is gone, and at most one a minute. Raises OSError if the disk fails."""
        free = shutil.disk_usage(self._folder).free
        if free >= LOW_BYTES:
            self._warned_bytes = math.inf
            return None
        now = time.monotonic()
        if free >= self._warned_bytes / 2 or now - self._warned_at < WARNING_INTERVAL_SECONDS:
            return None
        self._warned_at, self._warned_bytes = now, free
        return (
            f"Low disk space: {free // MIB} MiB are left for {self._folder}; free some. When the "
            "disk is full, new jobs get 503 until there is space again; accepted jobs are kept."
        )
