"""Owns what a worker prints past its logs, when those are JSON: it becomes log lines too.

Celery writes its farewell straight to the terminal, libjpeg and libpng what they think of a broken
file, the C library why it aborts. So standard output and error of the worker and
its pool processes become a pipe, and a thread of the parent logs what comes out of it. The logs
themselves go to the real standard error: they wait for nobody.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from typing import TextIO

log = logging.getLogger("yolo_queue.output")

_END = b"\0end"
_LONGEST_BYTES = 8192
_DRAIN_SECONDS = 2.0


class CapturedOutput:
    """Made in the parent, before the fork and before logs are set up."""

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._outputs = (os.dup(1), os.dup(2))
        self.stream: TextIO = io.TextIOWrapper(
            os.fdopen(os.dup(2), "wb", 0), write_through=True, errors="backslashreplace"
        )
        """The real standard error, for the logs."""
        reading_fd, writing = os.pipe()
        reading = io.FileIO(reading_fd)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        # The parent is the only reader: what outlives it must not block on a full pipe.
        os.register_at_fork(after_in_child=reading.close)
        self._thread = threading.Thread(
            target=_log_lines, args=(reading,), name="output", daemon=True
        )
        self._thread.start()

    def release(self) -> None:
        """Log what is still in the pipe and put the real outputs back: the worker is about to end,
        or to become another one (SIGHUP)."""
        if not self._thread.is_alive():
            return
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(2, b"\n" + _END + b"\n")
        self._thread.join(_DRAIN_SECONDS)
        for real, name in zip(self._outputs, (1, 2), strict=True):
            os.dup2(real, name)

    def close(self) -> None:
        """At the very end. What native libraries say while the interpreter is taken down ("leaked 4
        instances!") can be no log line any more, and is of no use."""
        self.release()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for name in (1, 2):
            os.dup2(nowhere, name)


def _log_lines(reading: io.FileIO) -> None:
    rest = b""
    while chunk := reading.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            if line == _END:
                return
            if text := line.decode(errors="backslashreplace").strip():
                log.info("%s", text)
