"""What `yolo-queue up` looks after while its services run: whether they are ready, Redis and its
disk."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request

import typer

from yolo_queue.server.disk_space import DiskRoom
from yolo_queue.server.embedded_redis import EmbeddedRedis
from yolo_queue.server.services import hurry

POLL_SECONDS = 0.25
SYNC_SECONDS = 1


class Watchdog(threading.Thread):
    """Says when the service is ready and when its disk has little room, has Redis' file synced
    every second, and ends the service when Redis dies under it."""

    def __init__(self, service_url: str, server: EmbeddedRedis | None) -> None:
        super().__init__(daemon=True)
        self._url = service_url + "/ready"
        self._server = server
        self._room = DiskRoom(server.folder) if server else None
        self._stopped = threading.Event()
        self._began = time.monotonic()
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
                typer.echo(f"{self._server.ending()}; everything is being stopped.")
                hurry()
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                self._look_after_the_disk()
                self._synced_at = time.monotonic()
            if not ready and (processes := self._ready_processes()):
                ready = True
                seconds = time.monotonic() - self._began
                typer.echo(
                    f"Ready after {seconds:.1f} s: {processes} worker processes have their model."
                )

    def _look_after_the_disk(self) -> None:
        if self._server and self._room:
            try:
                self._server.sync()
                warning = self._room.warning()
            except OSError as error:
                warning = f"The disk of {self._server.folder} fails: {error}"
            if warning:
                typer.echo(warning)

    def _ready_processes(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=1) as answer:  # noqa: S310
                return int(json.load(answer)["ready_processes"])
        except (OSError, urllib.error.HTTPError, ValueError):
            return 0
