"""Starts the real service as processes on free ports: embedded Redis, gateway, workers."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.support.machine import environment as machine_environment
from yolo_queue.server.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO_MODEL = ROOT / "models" / "demo.pt"


def free_port() -> int:
    """A port below those that the system gives to outgoing connections. One of those could be taken
    by an outgoing connection before the server takes it."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Poll until the condition returns something true, and return that. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


def answers(url: str) -> bool:
    """Whether a GET of this URL is answered with 200."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Stack:
    """One service. A test starts the parts that it needs; `stop` ends every process that is left.

    `environment` holds settings of the service, by the names of their variables.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.redis = EmbeddedRedis(folder / "redis", free_port(), max_bytes=1 << 30)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "REDIS_URL": self.redis.url,
            "PORT": str(self.port),
            "YOLO_MODEL": str(DEMO_MODEL),
            "WORKER_CONCURRENCY": "2",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment = machine_environment(**(settings | environment))
        # What workers alone have in theirs, such as a slower way to Redis.
        self.worker_environment: dict[str, str] = {}
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, workers: int = 1, app: str = "worker.app") -> Stack:
        """Redis, the gateway and workers, all ready. With no worker, jobs stay queued."""
        self.redis.start()
        self.start_gateway()
        self.workers = [self.start_worker(app=app) for _ in range(workers)]
        if workers:
            self.wait_ready(processes=workers * int(self.environment["WORKER_CONCURRENCY"]))
        return self

    def start_gateway(self) -> subprocess.Popen[bytes]:
        self.gateway = gateway = self.spawn("api", sys.executable, "-m", "api")

        def is_up() -> bool:
            assert gateway.poll() is None, f"the gateway ended with {gateway.returncode}"
            return self.answers("/health")

        self._wait_until(is_up, seconds=30, what="the gateway answers")
        return gateway

    def start_worker(
        self,
        name: str = "",
        *,
        app: str = "worker.app",
        within: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """`within`: a command in front of the worker's own, such as one that joins a cgroup."""
        name = name or f"w{len(self.processes)}"
        return self.spawn(
            f"worker-{name}",
            *(*within, sys.executable, "-m", "celery", "--quiet", "-A", app, "worker"),
            *("--hostname", f"{name}@test", "--without-mingle", "--without-gossip"),
            **{**self.worker_environment, **environment},
        )

    def spawn(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process of the stack; its output goes to a file of its name."""
        with self.log(name).open("ab") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**self.environment, **environment},
                cwd=ROOT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def answers(self, path: str) -> bool:
        return answers(self.url + path)

    def wait_ready(self, *, processes: int = 1, seconds: float = 90) -> None:
        def ready() -> bool:
            try:
                answer = httpx.get(self.url + "/ready", timeout=5)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and answer.json()["ready_processes"] >= processes

        self._wait_until(ready, seconds=seconds, what=f"{processes} processes are ready")

    def _wait_until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """As `wait_until`; its error has the end of the processes' logs."""
        try:
            wait_until(condition, seconds=seconds, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()[-6000:]}") from None

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self.redis.stop()
