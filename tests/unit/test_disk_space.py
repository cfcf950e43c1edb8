"""When `yolo-queue up` warns that its disk has little space."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from yolo_queue.server import disk_space
from yolo_queue.server.disk_space import DiskSpace

usage = namedtuple("usage", "free")


def test_low_space_is_reported_once_and_again_when_half_of_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, free = 1000.0, 2 * disk_space.LOW_BYTES
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: usage(free))
    monkeypatch.setattr(disk_space.time, "monotonic", lambda: now)
    disk = DiskSpace(tmp_path)
    assert disk.warning() is None
    free = 600 << 20
    assert "600 MiB are left" in (disk.warning() or "")
    free = 100 << 20
    assert disk.warning() is None, "at most one a minute"
    now += disk_space.WARNING_INTERVAL_SECONDS
    assert "100 MiB are left" in (disk.warning() or "")
    now += disk_space.WARNING_INTERVAL_SECONDS
    assert disk.warning() is None, "nothing has changed"
