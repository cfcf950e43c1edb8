"""Watches the service while `yolo-queue up` runs it: readiness, Redis and the disk."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request

import typer

from yolo_queue.server.disk_space import DiskSpace
from yolo_queue.server.embedded_redis import EmbeddedRedis
from yolo_queue.server.file_sync import FileSync
from yolo_queue.server.services import stop_quickly

POLL_SECONDS = 0.25
DISK_CHECK_SECONDS = 1


class Watchdog(threading.Thread):
    """Reports when the service is ready and when the disk is short of space or fails, and stops the
    service if Redis dies. Has Redis' file synced meanwhile."""

    def __init__(self, service_url: str, server: EmbeddedRedis | None) -> None:
        super().__init__(daemon=True)
        self._url = service_url + "/ready"
        self._server = server
        self._disk = DiskSpace(server.folder) if server else None
        self._sync = FileSync(server) if server else None
        self._stopped = threading.Event()
        self._started_at = time.monotonic()
        self._disk_checked_at = 0.0
        self.redis_died = False

    def start(self) -> None:
        if self._sync:
            self._sync.start()
        super().start()

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        if self._sync:
            self._sync.stop()

    def run(self) -> None:
        ready = False
        while not self._stopped.wait(POLL_SECONDS):
            if self._server and not self._server.running():
                self.redis_died = True
                typer.echo(f"{self._server.ending()}; stopping everything.")
                stop_quickly()
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() - self._disk_checked_at > DISK_CHECK_SECONDS:
                self._check_disk()
                self._disk_checked_at = time.monotonic()
            if not ready and (processes := self._ready_processes()):
                ready = True
                seconds = time.monotonic() - self._started_at
                typer.echo(
                    f"Ready after {seconds:.1f} s: {processes} worker processes have their model."
                )

    def _check_disk(self) -> None:
        if self._server and self._disk and self._sync:
            try:
                if self._sync.error:
                    raise self._sync.error
                warning = self._disk.warning()
            except OSError as error:
                warning = f"Writing to {self._server.folder} fails; check its disk: {error}"
            if warning:
                typer.echo(warning)

    def _ready_processes(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=1) as answer:  # noqa: S310
                return int(json.load(answer)["ready_processes"])
        except (OSError, urllib.error.HTTPError, ValueError):
            return 0
