"""A real stack of separate processes: embedded Redis, uvicorn, Celery workers, on free ports."""

from __future__ import annotations

import os
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

from yolo_queue.server.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO_MODEL = ROOT / "models" / "demo.pt"


def free_port() -> int:
    """Below those that the system gives to outgoing connections: one of them, or a client that
    knocks before the server is up, could take the port before the server does."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Poll until the condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


class Stack:
    """Start what a test needs of it; `stop` ends every process that is left."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.redis = EmbeddedRedis(folder / "redis", free_port(), max_bytes=1 << 30)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "REDIS_"))},
            "REDIS_URL": self.redis.url,
            "PORT": str(self.port),
            "YOLO_MODEL": str(DEMO_MODEL),
            "WORKER_CONCURRENCY": "2",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, workers: int = 1) -> Stack:
        self.redis.start()
        self.gateway = self.start_gateway()
        self.workers = [self.start_worker() for _ in range(workers)]
        self.wait_ready(processes=workers * int(self.environment["WORKER_CONCURRENCY"]))
        return self

    def start_gateway(self) -> subprocess.Popen[bytes]:
        gateway = self.spawn("api", sys.executable, "-m", "api")

        def answers() -> bool:
            assert gateway.poll() is None, f"the gateway ended with {gateway.returncode}"
            return self.answers("/health")

        self._wait_until(answers, seconds=30, what="the gateway answers")
        return gateway

    def start_worker(
        self,
        name: str = "",
        *,
        app: str = "worker.app",
        within: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """`within`: a command that the worker's is given to, as to join a cgroup first."""
        name = name or f"w{len(self.processes)}"
        return self.spawn(
            f"worker-{name}",
            *(*within, sys.executable, "-m", "celery", "--quiet", "-A", app, "worker"),
            *("--hostname", f"{name}@test", "--without-mingle", "--without-gossip"),
            **environment,
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
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, *, processes: int = 1, seconds: float = 90) -> None:
        def ready() -> bool:
            try:
                answer = httpx.get(self.url + "/ready", timeout=5)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and answer.json()["ready_processes"] >= processes

        self._wait_until(ready, seconds=seconds, what=f"{processes} processes are ready")

    def _wait_until(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """With what the processes said, if it is in vain."""
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


def pool_pids(worker: subprocess.Popen[bytes]) -> list[int]:
    """Pids of a worker's pool processes."""
    pids: list[int] = []
    for thread in Path(f"/proc/{worker.pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            pids += map(int, (thread / "children").read_text().split())
    return pids
