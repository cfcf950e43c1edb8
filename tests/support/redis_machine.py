"""A machine that runs Redis on a disk whose power can be cut, with a durability setting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.power_cut import PowerCutDisk, cut_power, sync_folders
from tests.support.stack import ROOT, free_port
from yolo_queue.server.embedded_redis import EmbeddedRedis


@dataclass(frozen=True, slots=True)
class Durability:
    """`appendfsync` of Redis. `watched`: with what `yolo-queue up` has beside it. `sync_ms`: how
    long a sync of this disk takes."""

    appendfsync: str = "no"
    watched: bool = False
    sync_ms: float = 0


class RedisMachine:
    """`with RedisMachine(...) as machine`: Redis runs, on loopback."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._durability = durability
        self._disk = PowerCutDisk(folder, sync_ms=durability.sync_ms)
        self._server = EmbeddedRedis(self._disk.path / "redis", self.port, max_bytes=1 << 30)
        self._watching: subprocess.Popen[bytes] | None = None
        self._pids: list[int] = []

    def __enter__(self) -> RedisMachine:
        self._disk.power_on()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._disk.__exit__()

    def start(self) -> None:
        if self._durability.watched:
            self._start_watched()
        else:
            self._server.start()
            self._pids = [self._server.pid]
            with redis.Redis(port=self.port) as client:
                client.config_set("appendfsync", self._durability.appendfsync)
            sync_folders(self._server.folder, self._disk.path)

    def _start_watched(self) -> None:
        command = [sys.executable, "-m", "tests.support.watched_redis", str(self._server.folder)]
        self._watching = watching = subprocess.Popen(
            [*command, str(self.port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert watching.stdout
        self._pids = [watching.pid, int(watching.stdout.readline())]

    def cut_power(self) -> None:
        """Also of Redis and what watches it. `power_on` starts them again."""
        cut_power([self._disk], self._pids)
        self._reap()

    def power_on(self) -> None:
        self._disk.power_on()
        self.start()

    def stop(self) -> None:
        """Stop a Redis that is not watched in order; the machine and its disk go on."""
        self._server.stop()
        self._pids = []

    def kill(self) -> None:
        """SIGKILL to Redis and what watches it; the machine and its disk go on."""
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        if self._watching:
            self._watching.wait()
            assert self._watching.stdout
            self._watching.stdout.close()
            self._watching = None
        elif self._pids:
            self._server.kill()
        self._pids = []
