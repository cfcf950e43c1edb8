"""Syncs the embedded Redis' file every second, which bounds what a power cut loses."""

from __future__ import annotations

import threading
import time

from yolo_queue.server.embedded_redis import EmbeddedRedis

SYNC_SECONDS = 1


class FileSync(threading.Thread):
    """A thread of its own that does nothing else: a terminal that is paused, or a service that is
    slow to answer, must not hold up a sync. From the beginning of one sync to the next is a second,
    so a power cut loses at most that and the time of one sync."""

    def __init__(self, server: EmbeddedRedis) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._stopped = threading.Event()
        self.error: OSError | None = None
        """Why the last sync failed; None if it did not."""

    def stop(self) -> None:
        """Stop after one more sync."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        stopped = False
        while not stopped:
            begin = time.monotonic()
            self._sync()
            stopped = self._stopped.wait(max(0.0, begin + SYNC_SECONDS - time.monotonic()))
        self._sync()

    def _sync(self) -> None:
        try:
            self._server.sync()
            self.error = None
        except OSError as error:
            self.error = error
