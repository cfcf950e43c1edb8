# ruff: noqa: S108 - the machine's own tools, by name; paths inside a root
"""Runs a command in a root file system much as an engine would: its own mounts and process
numbers, a user, no capabilities, a read-only root.

All mounts are made in a mount namespace of the command's own: they end with its processes, whatever
ends those, and nothing has to be unmounted.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

DEVICES = ("null", "zero", "full", "random", "urandom")
NO_PRIVILEGES = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")


@dataclass(frozen=True, slots=True)
class Bind:
    source: Path
    target: str
    read_only: bool = False


@dataclass(slots=True)
class Container:
    """How to run commands in `root`. `env` is all the environment there is."""

    root: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0"
    hostname: str = "rehearsal"
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[str, ...] = ()
    read_only: bool = False
    privileges: bool = False
    """With root's capabilities, as the steps of a build have them."""

    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def run(self, command: Sequence[str], log: IO[bytes], *, seconds: float) -> int:
        """Run to the end; returns the exit status. Output goes to `log`."""
        self.start(command, log)
        try:
            return self.wait(seconds)
        finally:
            self.kill()

    def start(self, command: Sequence[str], log: IO[bytes]) -> None:
        inside = ["exec", "chroot", str(self.root), *self._as_user(command)]
        script = "\n".join(["set -e", *self._mounts(), shlex.join(inside)])
        self.process = subprocess.Popen(
            # If this program dies, so does the first process, and with it its namespace.
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"),
                *("sh", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def execute(self, command: Sequence[str], *, seconds: float) -> tuple[int, str]:
        """Run a command beside the one that runs, as `docker exec` and health checks do."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--uts", "--root", "--wd=/"]
        out = subprocess.run(
            [*enter, *self._as_user(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        return out.returncode, out.stdout.decode(errors="replace").strip()

    def wait_started(self, seconds: float = 10) -> None:
        """Until the first process is inside its root: before, a command beside it would be outside.
        Raises `RuntimeError` if it ends first or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            with suppress(RuntimeError, OSError):
                if Path(f"/proc/{self.pid}/root").readlink() == self.root:
                    return
            time.sleep(0.01)
        raise RuntimeError("the container does not start; see its log")

    @property
    def pid(self) -> int:
        """The first process' number outside; raises `RuntimeError` if it does not run."""
        if self.process is not None and self.process.poll() is None:
            number = self.process.pid
            children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
            if children:
                return int(children[0])
        raise RuntimeError("the container does not run")

    def stop(self, seconds: float) -> tuple[int, float]:
        """SIGTERM to the first process; returns its exit status and how long it took."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        return self.wait(seconds), time.monotonic() - began

    def wait(self, seconds: float) -> int:
        if self.process is None:
            raise RuntimeError("the container was not started")
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """End what is left of it, at once. Does nothing if it has ended."""
        if self.process is None:
            return
        with suppress(RuntimeError, ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # the first process, and with it all of its namespace
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _as_user(self, command: Sequence[str]) -> list[str]:
        uid, gid = user_numbers(self.root, self.user)
        return [
            *("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            "--pdeathsig=KILL",  # said again: a change of user takes back what unshare had set
            *(() if self.privileges else NO_PRIVILEGES),
            *("/usr/bin/env", "-i", "-C", self.workdir),
            *(f"{name}={value}" for name, value in self.env.items()),
            *command,
        ]

    def _mounts(self) -> list[str]:
        root = shlex.quote(str(self.root))
        lines = [
            f"hostname {shlex.quote(self.hostname)}",
            "mount --make-rprivate /",
            f"mount --bind {root} {root}",
            f"mkdir -p {root}/proc {root}/dev {root}/tmp",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
            f"mkdir {root}/dev/shm",
            f"mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/dev/shm",
            f"ln -s /proc/self/fd {root}/dev/fd",
            f"mkdir -p {root}/sys; mount --rbind /sys {root}/sys",
            f"mount -o remount,bind,ro {root}/sys",
        ]
        for name in DEVICES:
            lines.append(f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}")
        for bind in self.binds:
            source, target = shlex.quote(str(bind.source)), shlex.quote(f"{self.root}{bind.target}")
            if bind.source.is_dir():
                lines.append(f"mkdir -p {target}")
            else:
                lines.append(f"mkdir -p $(dirname {target}); touch {target}")
            lines.append(f"mount --bind {source} {target}")
            if bind.read_only:
                lines.append(f"mount -o remount,bind,ro {target}")
        if self.read_only:
            lines.append(f"mount -o remount,bind,ro {root}")
        for target in self.tmpfs:
            lines.append(f"mount -t tmpfs -o mode=1777,size=256m tmpfs {root}{shlex.quote(target)}")
        return lines


def left_in(folder: Path) -> list[int]:
    """Processes that still have their root somewhere below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "root").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def user_numbers(root: Path, user: str) -> tuple[str, str]:
    """User and group number of a Dockerfile's USER: `name`, `uid` or `uid:gid`."""
    name, _, group = user.partition(":")
    for line in (root / "etc/passwd").read_text().splitlines():
        entry = line.split(":")
        if name in (entry[0], entry[2]):
            return entry[2], group or entry[3]
    return name, group or "0"
