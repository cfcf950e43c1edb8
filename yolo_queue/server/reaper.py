"""Stops what `yolo-queue up` started if `up` itself is killed. Runs as a small process.

It reads from a pipe whose other end only `up` holds. An `up` that stops in order writes DONE to it;
if the pipe closes without that, `up` was killed. The reaper then does what `up` would have done:
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

from yolo_queue.server.process_list import (
    REAPER,
    REDIS,
    SUPERVISOR,
    UP,
    ListedProcess,
    ProcessList,
    running_processes,
)

DONE = b"done"
REDIS_SECONDS = 30
"""How long Redis may take to write its file."""
POLL_SECONDS = 0.1


class Reaper:
    """Starts the process, and dismisses it when `up` has stopped everything itself."""

    def __init__(self, processes: ProcessList, stop_timeout_seconds: float) -> None:
        """`stop_timeout_seconds`: how long services may take to stop before they are killed."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "yolo_queue.server.reaper"),
                *(str(processes.path), str(stop_timeout_seconds)),
            ],
            stdin=subprocess.PIPE,
            # Ctrl-C and a closed terminal do not reach it, and DATA_DIR is locked until it is done.
            start_new_session=True,
            pass_fds=[processes.lock],
        )
        assert self._process.stdin is not None  # noqa: S101
        # A forked child, such as honcho's, would keep the pipe open.
        os.register_at_fork(after_in_child=self._process.stdin.close)
        processes.add(REAPER, self._process.pid)

    def dismiss(self) -> None:
        """End it: there is nothing left to stop."""
        self._process.communicate(DONE)


def stop_all(path: Path, stop_timeout_seconds: float) -> None:
    """Stop every process on the list at `path`, Redis last."""
    # In a loop, since a service that was just being started adds itself a moment later.
    while services := _running(path, without=(UP, REAPER, REDIS, SUPERVISOR)):
        _print(f"`yolo-queue up` is gone; stopping {', '.join(map(str, services))}")
        _stop(path, services, stop_timeout_seconds)
    # Honcho's processes end with their service, unless they wait to tell `up` about it.
    for supervisor in _running(path, only=SUPERVISOR):
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGKILL)
    if servers := _running(path, only=REDIS):
        _stop(path, servers, REDIS_SECONDS)
        _print("Redis stopped; accepted jobs are kept. `make run` continues them.")


def _stop(path: Path, processes: Sequence[ListedProcess], timeout_seconds: float) -> None:
    """Send SIGTERM, and SIGKILL to those that still run after `timeout_seconds`."""
    _signal(processes, signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while left := [process for process in running_processes(path) if process in processes]:
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _signal(processes: Sequence[ListedProcess], number: signal.Signals) -> None:
    for process in processes:
        # Each leads its own session. macOS gives EPERM for a group whose last process has ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def _running(path: Path, *, only: str = "", without: Sequence[str] = ()) -> list[ListedProcess]:
    return [
        process
        for process in running_processes(path)
        if process.name not in without and only in ("", process.name)
    ]


def _print(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone as well
        print(text, flush=True)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for `up`, if sent to all of them
        signal.signal(number, signal.SIG_IGN)
    path, stop_timeout_seconds = Path(sys.argv[1]), float(sys.argv[2])
    if sys.stdin.buffer.read() != DONE:
        stop_all(path, stop_timeout_seconds)


if __name__ == "__main__":
    main()
