"""Syncing the embedded Redis' file: which file when, and what ends it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from yolo_queue.server import embedded_redis, file_sync
from yolo_queue.server.embedded_redis import EmbeddedRedis
from yolo_queue.server.file_sync import FileSync


def test_the_older_of_two_files_is_synced_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    names = {}
    for name in ("10.incr.aof", "9.incr.aof", "9.base.rdb"):
        path = folder / f"appendonly.aof.{name}"
        path.touch()
        names[path.stat().st_ino] = name
    synced: list[str] = []
    monkeypatch.setattr(
        embedded_redis, "_sync_file", lambda fd: synced.append(names[os.fstat(fd).st_ino])
    )
    EmbeddedRedis(tmp_path, 1).sync()
    assert synced == ["9.incr.aof", "10.incr.aof"]


class Disk:
    """Counts syncs; fails or is slow on demand."""

    def __init__(self) -> None:
        self.syncs = 0
        self.seconds = 0.0
        self.broken = False

    def sync(self) -> None:
        time.sleep(self.seconds)
        self.syncs += 1
        if self.broken:
            raise OSError("I/O error")


@contextmanager
def syncing(disk: Disk) -> Iterator[FileSync]:
    thread = FileSync(cast(EmbeddedRedis, disk))
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def wait_for_syncs(disk: Disk, syncs: int) -> None:
    deadline = time.monotonic() + 10
    while disk.syncs < syncs:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_failing_disk_is_reported_for_as_long_as_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_sync, "SYNC_SECONDS", 0.01)
    disk = Disk()
    with syncing(disk) as thread:
        wait_for_syncs(disk, 2)
        assert thread.error is None
        disk.broken = True
        wait_for_syncs(disk, disk.syncs + 2)
        assert "I/O error" in str(thread.error)
        disk.broken = False
        wait_for_syncs(disk, disk.syncs + 2)
        assert thread.error is None


def test_it_syncs_once_more_when_it_is_stopped() -> None:
    disk = Disk()
    with syncing(disk):
        wait_for_syncs(disk, 1)
    assert disk.syncs == 2


def test_the_time_of_a_sync_is_part_of_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that takes longer than the interval is followed by the next at once."""
    monkeypatch.setattr(file_sync, "SYNC_SECONDS", 0.05)
    disk = Disk()
    disk.seconds = 0.05
    waits: list[float] = []
    with syncing(disk) as thread:
        wait = thread._stopped.wait
        monkeypatch.setattr(
            thread._stopped, "wait", lambda seconds: waits.append(seconds) or wait(seconds)
        )
        wait_for_syncs(disk, 4)
    assert waits
    assert set(waits) == {0.0}
