"""Which processes on the list of `yolo-queue up` count as running."""

from __future__ import annotations

import os
from pathlib import Path

from yolo_queue.server.process_list import ListedProcess, running_processes


def test_a_process_that_has_the_pid_of_another_is_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "running"
    path.write_text(f"worker {os.getpid()} \nflower")  # a full disk cut the last line short
    assert running_processes(path) == [ListedProcess("worker", os.getpid())]
    os.utime(path, (1, 1))  # a list from before this process began
    assert running_processes(path) == []
