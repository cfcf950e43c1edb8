"""A small process that ends what `yolo-queue up` started, should that be killed.

It waits at a pipe whose other end only `up` holds. When `up` stops by itself it says farewell; a
pipe that closes without one means that it is gone. Then the reaper does what `up` would have done:
worker, gateway and Flower get SIGTERM and time to finish, and Redis is stopped after them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yolo_queue.server.roster import REAPER, REDIS, SUPERVISOR, UP, Member, Roster, living

FAREWELL = b"farewell"
REDIS_SECONDS = 30
"""For Redis to write its file."""
POLL_SECONDS = 0.1


class Reaper:
    """The handle that `up` has on the process."""

    def __init__(self, roster: Roster, patience_seconds: float) -> None:
        """`patience_seconds`: how long services may take before they are killed."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "yolo_queue.server.reaper",
                str(roster.path),
                str(patience_seconds),
            ],
            stdin=subprocess.PIPE,
            # Ctrl-C and a closed terminal do not reach it, and DATA_DIR is locked until it is done.
            start_new_session=True,
            pass_fds=[roster.lock],
        )
        assert self._process.stdin is not None  # noqa: S101
        # A child that is forked, as honcho's are, would keep the pipe open.
        os.register_at_fork(after_in_child=self._process.stdin.close)
        roster.add(REAPER, self._process.pid)

    def dismiss(self) -> None:
        """There is nothing left to end."""
        self._process.communicate(FAREWELL)


def end_all(path: Path, patience_seconds: float) -> None:
    """End everyone on the list at `path`, Redis last."""
    # Again and again: a service that was just being started adds itself a moment later.
    while services := [m for m in living(path) if m.name not in (UP, REAPER, REDIS, SUPERVISOR)]:
        _say(f"`yolo-queue up` is gone; stopping {', '.join(map(str, services))}")
        _end(path, services, patience_seconds)
    # Honcho's processes end with their service, unless they wait to tell `up` about it.
    for supervisor in _named(path, SUPERVISOR):
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGKILL)
    if servers := _named(path, REDIS):
        _end(path, servers, REDIS_SECONDS)
        _say("Redis stopped; accepted jobs are kept. `make run` continues them.")


def _end(path: Path, members: Sequence[Member], patience_seconds: float) -> None:
    """SIGTERM, and SIGKILL for those that are still there after `patience_seconds`."""
    _signal(members, signal.SIGTERM)
    deadline = time.monotonic() + patience_seconds
    while left := [member for member in living(path) if member in members]:
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _signal(members: Sequence[Member], number: signal.Signals) -> None:
    for member in members:
        # Each leads a session of its own. macOS says EPERM of a group whose last process has ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(member.pid, number)


def _named(path: Path, name: str) -> list[Member]:
    return [member for member in living(path) if member.name == name]


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone as well
        print(text, flush=True)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for `up`, if everyone gets it
        signal.signal(number, signal.SIG_IGN)
    path, patience_seconds = Path(sys.argv[1]), float(sys.argv[2])
    if sys.stdin.buffer.read() != FAREWELL:
        end_all(path, patience_seconds)


if __name__ == "__main__":
    main()
