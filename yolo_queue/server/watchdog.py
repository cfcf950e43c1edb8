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
from yolo_queue.server.services import stop_quickly

POLL_SECONDS = 0.25
SYNC_SECONDS = 1


class Watchdog(threading.Thread):
    """Reports when the service is ready and when disk space is low, syncs Redis' file every second,
    and stops the service if Redis dies."""

    def __init__(self, service_url: str, server: EmbeddedRedis | None) -> None:
        super().__init__(daemon=True)
        self._url = service_url + "/ready"
        self._server = server
        self._disk = DiskSpace(server.folder) if server else None
        self._stopped = threading.Event()
        self._started_at = time.monotonic()
        self._synced_at = 0.0
        self.redis_died = False

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        ready = False
        while not self._stopped.wait(POLL_SECONDS):
            if self._server and not self._server.running():
                self.redis_died = True
                typer.echo(f"{self._server.ending()}; stopping everything.")
                stop_quickly()
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                self._sync_and_check_disk()
                self._synced_at = time.monotonic()
            if not ready and (processes := self._ready_processes()):
                ready = True
                seconds = time.monotonic() - self._started_at
                typer.echo(
                    f"Ready after {seconds:.1f} s: {processes} worker processes have their model."
                )

    def _sync_and_check_disk(self) -> None:
        if self._server and self._disk:
            try:
                self._server.sync()
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
