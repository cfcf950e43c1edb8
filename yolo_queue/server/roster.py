"""The list of processes that serve one DATA_DIR, in a file that is locked for as long as they do.

Two Redis servers on one append-only file lose each other's jobs, so a folder serves one
`yolo-queue up` at a time. The lock belongs to the open file, not to a process: whoever inherits its
descriptor (Redis, the reaper) holds it too, and it ends with the last of them, whatever ends them.
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
"""By how much a process may seem younger than it is: start times are computed from the uptime."""


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the list: `name pid note`."""

    name: str
    pid: int
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


class Roster:
    """The list of this run; `take` it first, `release` it last."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        # A child that is forked, as honcho's are, would hold the lock as well.
        os.register_at_fork(after_in_child=file.close)

    @classmethod
    def take(cls, data_dir: Path, port: int) -> Roster:
        """Lock the folder. Raises `StartupError`, which names who has it and says what to do."""
        path = data_dir / "running"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise StartupError(f"DATA_DIR={data_dir} cannot be used ({error.strerror}).") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise StartupError(_in_use(data_dir, living(path))) from None
        except OSError as error:
            file.close()
            raise StartupError(
                f"DATA_DIR={data_dir} cannot be locked ({error.strerror}): put it on a local disk."
            ) from None
        others = [member for member in living(path) if member.pid != os.getpid()]
        if left := [member for member in others if member.name != SUPERVISOR]:
            file.close()
            raise StartupError(_left_over(data_dir, left))
        try:
            file.truncate(0)
            roster = cls(path, file)
            roster.add(UP, os.getpid(), f"on port {port} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        except OSError as error:
            raise StartupError(f"DATA_DIR={data_dir} takes no writes ({error.strerror}).") from None
        return roster

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock, for `pass_fds`."""
        return self._file.fileno()

    def add(self, name: str, pid: int, note: str = "") -> None:
        self._file.write(f"{name} {pid} {note}\n".encode())

    def add_itself(self, name: str) -> str:
        """Shell words with which a shell adds itself, and so the program that it becomes. Nothing
        that was started is missing from the list then, even if this process is killed meanwhile."""
        path = shlex.quote(str(self.path))
        return f"echo {SUPERVISOR} $PPID >>{path}; echo {name} $$ >>{path}; "

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()


def living(path: Path) -> list[Member]:
    """Those on the list at `path` that still run."""
    written_at = path.stat().st_mtime
    members = []
    for line in path.read_text().splitlines():
        name, pid, note = (*line.split(maxsplit=2), "", "")[:3]
        if not pid.isdigit():  # a full disk cut it short
            continue
        try:
            process = psutil.Process(int(pid))
            # One that is younger than the list has only got the pid of another that ended.
            known = process.create_time() < written_at + CLOCK_SECONDS
            if known and process.status() != psutil.STATUS_ZOMBIE:
                members.append(Member(name, int(pid), note))
        except psutil.Error:
            continue
    return members


def _in_use(data_dir: Path, members: list[Member]) -> str:
    by_name = {member.name: member for member in members}
    if user := by_name.get(UP):
        return (
            f"DATA_DIR={data_dir} is in use by another `yolo-queue up`: process {user.pid}, "
            f"{user.note}. Stop that one (`kill {user.pid}`), or give this one a DATA_DIR, PORT, "
            "FLOWER_PORT and EMBEDDED_REDIS_PORT of its own."
        )
    if REAPER in by_name:
        return (
            f"The `yolo-queue up` that used DATA_DIR={data_dir} was killed, and what it started is "
            f"being stopped: {_names(members)}. Running jobs may finish first; try again then."
        )
    if members:
        return _left_over(data_dir, [m for m in members if m.name != SUPERVISOR])
    return (
        f"DATA_DIR={data_dir} is in use by processes that cannot be seen from here: a service "
        "that is just starting, or one in another container. Stop it, or set another DATA_DIR."
    )


def _left_over(data_dir: Path, members: list[Member]) -> str:
    pids = " ".join(str(member.pid) for member in members)
    return (
        f"An earlier `yolo-queue up` on DATA_DIR={data_dir} was killed and left this running: "
        f"{_names(members)}. Stop it with `kill {pids}`, what stays with `kill -9`, then start "
        "again; accepted jobs are kept."
    )


def _names(members: list[Member]) -> str:
    return ", ".join(str(member) for member in members if member.name not in (REAPER, SUPERVISOR))
