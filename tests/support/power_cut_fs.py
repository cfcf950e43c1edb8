"""A file system that keeps what was not synced apart, so that a power cut can drop it.

    python -m tests.support.power_cut_fs FOLDER SYNC_MS

It is mounted at FOLDER/mount (FUSE, as root). Programs see FOLDER/live. FOLDER/disk is what a power
cut leaves, the least that POSIX allows: the content of a file as its last fsync or fdatasync found
it, whichever process called it, and the names in a folder as the last fsync of that folder found
them. Nothing reaches the disk by itself, as it does on a real machine within about 30 s. Killing
this process is the power cut.

A sync of a folder is ordered as a journal orders it: new names appear before others are replaced,
and these before others vanish. SYNC_MS is how long a sync takes, for a slow disk; everything else
waits meanwhile.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from mfusepy import FUSE, Operations, overrides

NAMES = MOUNT, LIVE, DISK, INODES = "mount", "live", "disk", "inodes"
_ATTRIBUTES = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
_TIMES = ("st_atime", "st_mtime", "st_ctime")
_CHUNK = 1 << 20


class PowerCutFileSystem(Operations):
    """Passes everything through to `live`, and copies to `disk` what is synced.

    The durable content of a file is in `inodes`, by its inode number in `live`; the durable names
    in `disk` are hard links to it.
    """

    use_ns = True

    def __init__(self, folder: Path, sync_seconds: float) -> None:
        self._live, self._disk, self._inodes = (folder / n for n in (LIVE, DISK, INODES))
        self._sync_seconds = sync_seconds
        # By inode number: the first byte that the disk does not have.
        self._unsynced: dict[int, int] = {}

    def adopt(self) -> None:
        """Take what is in `live` as synced."""
        for parent, _, names in os.walk(self._live):
            for name in names:
                path = Path(parent, name)
                self._created(path.stat().st_ino)
                with path.open("rb") as file:
                    self._changed(file.fileno(), 0)
                    self._copy(file.fileno())
            self._sync_names(Path(parent))

    # -- what is durable ------------------------------------------------------------------------

    def _changed(self, fd: int, offset: int) -> None:
        inode = os.fstat(fd).st_ino
        self._unsynced[inode] = min(offset, self._unsynced.get(inode, offset))

    def _created(self, inode: int) -> None:
        """Start with an empty file on the disk; the number may have been another file's."""
        self._unsynced.pop(inode, None)
        durable = self._inodes / str(inode)
        durable.unlink(missing_ok=True)
        durable.touch()

    @overrides(Operations)
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        if os.fstat(fh).st_ino in self._unsynced:
            time.sleep(self._sync_seconds)
            self._copy(fh)
        return 0

    def _copy(self, fd: int) -> None:
        status = os.fstat(fd)
        offset = self._unsynced.pop(status.st_ino)
        with (self._inodes / str(status.st_ino)).open("r+b") as durable:
            durable.truncate(min(offset, status.st_size))
            durable.seek(offset)
            while chunk := os.pread(fd, _CHUNK, offset):
                durable.write(chunk)
                offset += len(chunk)

    @overrides(Operations)
    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(self._sync_seconds)
        self._sync_names(self._at(path))
        return 0

    def _sync_names(self, live: Path) -> None:
        disk = self._disk / live.relative_to(self._live)
        if not disk.exists():  # its own name has not been synced: kept apart until it is
            disk = self._nameless(live)
            disk.mkdir(exist_ok=True)
        names = sorted(_names(live), key=lambda name: (disk / name).exists())
        for name in names:
            if (live / name).is_dir():
                self._sync_folder_name(live / name, disk / name)
            else:
                self._sync_name(live / name, disk / name)
        for name in _names(disk) - set(names):
            if (disk / name).is_dir():
                shutil.rmtree(disk / name)
            else:
                (disk / name).unlink()

    def _nameless(self, live: Path) -> Path:
        return self._inodes / f"folder-{live.stat().st_ino}"

    def _sync_folder_name(self, live: Path, disk: Path) -> None:
        if disk.exists():
            return
        if self._nameless(live).exists():
            self._nameless(live).rename(disk)
        else:
            disk.mkdir()

    def _sync_name(self, live: Path, disk: Path) -> None:
        durable = self._inodes / str(live.stat().st_ino)
        if disk.exists() and disk.samefile(durable):
            return
        new = self._inodes / "new"
        new.hardlink_to(durable)
        new.replace(disk)

    # -- what programs see ----------------------------------------------------------------------

    def _at(self, path: str) -> Path:
        return self._live / path.lstrip("/")

    @overrides(Operations)
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        times = {name: getattr(status, f"{name}_ns") for name in _TIMES}
        return {name: getattr(status, name) for name in _ATTRIBUTES} | times

    @overrides(Operations)
    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *_names(self._at(path))]

    @overrides(Operations)
    def mkdir(self, path: str, mode: int) -> int:
        self._at(path).mkdir(mode)
        return 0

    @overrides(Operations)
    def rmdir(self, path: str) -> int:
        self._at(path).rmdir()
        return 0

    @overrides(Operations)
    def unlink(self, path: str) -> int:
        self._at(path).unlink()
        return 0

    @overrides(Operations)
    def rename(self, old: str, new: str) -> int:
        self._at(old).rename(self._at(new))
        return 0

    @overrides(Operations)
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        fd = os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        self._created(os.fstat(fd).st_ino)
        return fd

    @overrides(Operations)
    def open(self, path: str, flags: int) -> int:
        # The kernel gives each write its offset; a sync reads what was written.
        readable = os.O_RDONLY if flags & os.O_ACCMODE == os.O_RDONLY else os.O_RDWR
        fd = os.open(self._at(path), readable | flags & os.O_TRUNC)
        if flags & os.O_TRUNC:
            self._changed(fd, 0)
        return fd

    @overrides(Operations)
    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    @overrides(Operations)
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @overrides(Operations)
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._changed(fh, offset)
        return os.pwrite(fh, data, offset)

    @overrides(Operations)
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._at(path).open("r+b") as file:
            self._changed(file.fileno(), min(length, os.fstat(file.fileno()).st_size))
            file.truncate(length)
        return 0

    @overrides(Operations)
    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._live)
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def main() -> None:
    folder, sync_ms = Path(sys.argv[1]), float(sys.argv[2])
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    file_system = PowerCutFileSystem(folder, sync_ms / 1000)
    file_system.adopt()
    FUSE(file_system, str(folder / MOUNT), foreground=True, nothreads=True)


if __name__ == "__main__":
    main()
