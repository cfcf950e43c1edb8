"""A disk whose power can be cut: what was not synced is gone (power_cut_fs.py)."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.stack import ROOT, wait_until


def why_not() -> str:
    """Why this user or system cannot have such a disk; empty if it can."""
    if sys.platform != "linux":
        return "FUSE is Linux's"
    if os.geteuid() != 0:
        return "mounting a disk whose power can be cut needs root"
    if not Path("/dev/fuse").exists():
        return "this kernel has no /dev/fuse: no disk whose power can be cut"
    return ""


def lacking() -> str:
    """What has to be installed first; empty if nothing."""
    if not any(map(ctypes.util.find_library, ("fuse", "fuse3"))):
        return "libfuse is not installed: no disk whose power can be cut"
    return ""


class PowerCutDisk:
    """`with PowerCutDisk(folder) as disk`: mounted at `disk.path`, which exists and is empty."""

    def __init__(self, folder: Path, *, sync_ms: float = 0) -> None:
        self.folder = folder
        self.path = folder / "mount"
        self._sync_ms = sync_ms
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PowerCutDisk:
        self.power_on()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            cut_power([self], [])

    def power_on(self) -> None:
        """Mount it, with what the last cut left."""
        command = [sys.executable, "-m", "tests.support.power_cut_fs"]
        self.process = process = subprocess.Popen(
            [*command, str(self.folder), str(self._sync_ms)], cwd=ROOT, start_new_session=True
        )

        def mounted() -> bool:
            assert process.poll() is None, "the file system has ended"
            return self.path.is_mount()

        wait_until(mounted, seconds=20, what="the file system is mounted")

    def unmount(self) -> None:
        """Once its process is killed: what was not synced is gone."""
        assert self.process is not None
        self.process.wait()
        self.process = None
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)  # noqa: S607
        shutil.rmtree(self.folder / "live")
        shutil.rmtree(self.folder / "inodes")
        (self.folder / "disk").rename(self.folder / "live")


def cut_power(disks: Sequence[PowerCutDisk], pids: Iterable[int]) -> None:
    """Cut the power of the machines that have these disks and run these processes, all at once. The
    processes are the caller's to reap."""
    machines = [disk.process.pid for disk in disks if disk.process]
    # The disks first: what a process does after this does not count.
    for pid in (*machines, *pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for disk in disks:
        disk.unmount()


def sync_folders(*folders: Path) -> None:
    """Make the names in them durable, as those of a server's folders are that have existed for
    longer than the kernel keeps anything."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
