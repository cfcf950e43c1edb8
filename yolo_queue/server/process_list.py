"""Lists the processes that serve one DATA_DIR, in a file that is locked for as long as they run.

Two Redis servers on one append-only file would lose each other's jobs, so a folder serves one
`yolo-queue up` at a time. The lock belongs to the open file, not to a process: a process that
inherits the descriptor (Redis, the reaper) holds it too, until the last of them has ended.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from shared.errors import StartupError

UP, REAPER, REDIS, SUPERVISOR = "up", "reaper", "redis", "supervisor"

CLOCK_SECONDS = 5
"""Start times are computed from the uptime, so a process may seem younger than it is by this."""


@dataclass(frozen=True, slots=True)
class ListedProcess:
    """One line of the list: `name pid note`."""

    name: str
    pid: int
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


class ProcessList:
    """The list of this run. `acquire` it first and `release` it last."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        # A forked child, such as honcho's, would hold the lock as well.
        os.register_at_fork(after_in_child=file.close)

    @classmethod
    def acquire(cls, data_dir: Path, port: int) -> ProcessList:
        """Lock the folder. Raises `StartupError`, which names who uses it and says what to do."""
        path = data_dir / "running"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise StartupError(
                f"DATA_DIR={data_dir} cannot be used ({error.strerror}): set another one."
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            others = [p for p in running_processes(path) if p.pid != os.getpid()]
            if left := [process for process in others if process.name != SUPERVISOR]:
                file.close()
                raise StartupError(_left_over(data_dir, left))
            file.truncate(0)
            processes = cls(path, file)
            since = datetime.now().isoformat(" ", "seconds")
            processes.add(UP, os.getpid(), f"on port {port} since {since}")
        except BlockingIOError:
            file.close()
            raise StartupError(_in_use(data_dir, running_processes(path))) from None
        except OSError as error:
            file.close()
            raise StartupError(
                f"DATA_DIR={data_dir} cannot be locked or written ({error.strerror}): put it on a "
                "local disk with free space."
            ) from None
        return processes

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock, for `pass_fds`."""
        return self._file.fileno()

    def add(self, name: str, pid: int, note: str = "") -> None:
        self._file.write(f"{name} {pid} {note}\n".encode())

    def shell_entry(self, name: str) -> str:
        """Shell commands with which a shell adds itself, before it becomes the program `name`. So
        nothing that was started is missing, even if this process is killed meanwhile."""
        path = shlex.quote(str(self.path))
        return f"echo {SUPERVISOR} $PPID >>{path}; echo {name} $$ >>{path}; "

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()


def running_processes(path: Path) -> list[ListedProcess]:
    """Those on the list at `path` that still run."""
    written_at = path.stat().st_mtime
    running = []
    for line in path.read_text().splitlines():
        name, pid, note = (*line.split(maxsplit=2), "", "")[:3]
        if not pid.isdigit():  # a full disk cut the line short
            continue
        try:
            process = psutil.Process(int(pid))
            # A process younger than the list has only the same pid as one that ended.
            is_listed = process.create_time() < written_at + CLOCK_SECONDS
            if is_listed and process.status() != psutil.STATUS_ZOMBIE:
                running.append(ListedProcess(name, int(pid), note))
        except psutil.Error:
            continue
    return running


def _in_use(data_dir: Path, processes: list[ListedProcess]) -> str:
    by_name = {process.name: process for process in processes}
    if user := by_name.get(UP):
        return (
            f"DATA_DIR={data_dir} is in use by another `yolo-queue up`: process {user.pid}, "
            f"{user.note}. Stop that one (`kill {user.pid}`), or give this one its own DATA_DIR, "
            "PORT, FLOWER_PORT and EMBEDDED_REDIS_PORT."
        )
    if REAPER in by_name:
        return (
            f"The `yolo-queue up` that used DATA_DIR={data_dir} was killed, and what it started is "
            f"being stopped: {_names(processes)}. Running jobs may finish first; try again then."
        )
    if processes:
        return _left_over(data_dir, [p for p in processes if p.name != SUPERVISOR])
    return (
        f"DATA_DIR={data_dir} is in use by processes that are not visible here: a service that is "
        "just starting, or one in another container. Stop it, or set another DATA_DIR."
    )


def _left_over(data_dir: Path, processes: list[ListedProcess]) -> str:
    pids = " ".join(str(process.pid) for process in processes)
    return (
        f"An earlier `yolo-queue up` on DATA_DIR={data_dir} was killed and left this running: "
        f"{_names(processes)}. Stop it with `kill {pids}`, what stays with `kill -9`, then start "
        "again; accepted jobs are kept."
    )


def _names(processes: list[ListedProcess]) -> str:
    return ", ".join(str(one) for one in processes if one.name not in (REAPER, SUPERVISOR))
