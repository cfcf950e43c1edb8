"""Sets the clock of one process, by libfaketime, while it runs."""

from __future__ import annotations

from pathlib import Path

from tests.support.machine import missing


def libfaketime() -> Path:
    """The library to preload. It is no command, so it is looked for where packages put it."""
    for pattern in ("lib/*/faketime", "lib*/faketime", "local/lib/faketime"):
        for found in Path("/usr").glob(f"{pattern}/libfaketime.so.1"):
            return found
    missing("libfaketime is not installed: no clock can be set (package libfaketime)")


class FakedClock:
    """A clock that starts right. `environment` is what a process needs to go by it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._seconds = 0.0
        self.environment = {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Nobody can set the monotonic clock, and servers rely on that.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.step(0)

    def step(self, seconds: float) -> None:
        """Set it forward by so much; back if it is negative."""
        self._seconds += seconds
        # In one step: the process reads this file whenever it asks for the time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._seconds:+f}\n")
        new.replace(self._file)
