"""Owns `yolo-queue up`, which is what `make run` runs: the whole service on this machine.

Redis is started first and stopped last; honcho supervises the worker, the gateway and Flower: when
one of them ends, all end, so the stack never half runs. Accepted jobs wait in Redis' file.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import honcho.manager
import typer

from cli.embedded_redis import EmbeddedRedis
from cli.model_choice import ModelChoice, choose_model
from shared.errors import InvalidSettings, StartupError
from shared.redis_client import UNAVAILABLE, connect
from shared.settings import Settings, load_settings

SYNC_SECONDS = 1


def up() -> None:
    """Start Redis (unless REDIS_URL is set), workers, gateway and Flower; Ctrl-C drains."""
    try:
        raise typer.Exit(_run(load_settings()))
    except InvalidSettings as error:
        _say(error.message)
        raise typer.Exit(2) from None
    except StartupError as error:
        _say(error.message)
        raise typer.Exit(1) from None


def _run(settings: Settings) -> int:
    _check_port(settings.host, settings.port, "PORT")
    _check_port(settings.host, settings.flower_port, "FLOWER_PORT")
    data_dir = Path(settings.data_dir).resolve()
    server: EmbeddedRedis | None = None
    if "redis_url" in settings.model_fields_set:
        _check_redis(settings)
        redis_url = settings.redis_url
    else:
        _check_port("127.0.0.1", settings.embedded_redis_port, "EMBEDDED_REDIS_PORT")
        server = EmbeddedRedis(
            data_dir / "redis",
            settings.embedded_redis_port,
            max_bytes=settings.embedded_redis_max_bytes,
        )
        redis_url = server.url
    model = choose_model(settings, data_dir)
    auth = settings.flower_basic_auth.get_secret_value() or _stored_password(data_dir)
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "YOLO_MODEL": model.path,
        "FLOWER_BASIC_AUTH": auth,
        "PYTHONUNBUFFERED": "1",
    }
    if server:
        server.start()
    try:
        _announce(settings, model, auth, server)
        return _supervise(settings, environment, data_dir, server)
    finally:
        if server:
            server.stop()
            _say("Redis stopped; accepted jobs are in " + str(server.folder))


def _supervise(
    settings: Settings, environment: dict[str, str], data_dir: Path, server: EmbeddedRedis | None
) -> int:
    # honcho kills what has not stopped after this time; a worker may finish the job it has.
    honcho.manager.KILL_WAIT = settings.task_hard_limit_seconds + 15
    manager = honcho.manager.Manager()
    python = sys.executable
    celery = [python, "-m", "celery", "--quiet", "-A", "worker.app"]
    commands = {
        "worker": [*celery, "worker", "--without-mingle", "--without-gossip"],
        "api": [python, "-m", "api"],
        "flower": [
            *(*celery, "flower", f"--address={settings.host}", f"--port={settings.flower_port}"),
            *("--persistent=True", f"--db={data_dir / 'flower.db'}"),
            *("--state_save_interval=10000", "--logging=error"),
        ],
    }
    for name, command in commands.items():
        # exec: signals go to the program, not to a shell around it.
        manager.add_process(name, "exec " + shlex.join(command), env=environment)
    watcher = _Watcher(settings, server)
    watcher.start()
    manager.loop()
    watcher.stop()
    if watcher.redis_died:
        return 1
    stopped_by_user = manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    if not stopped_by_user:
        _say(
            f"A process ended by itself (exit status {manager.returncode}); everything is stopped."
        )
        _say("Accepted jobs are kept. The lines above say what happened; then `make run` again.")
    return 0 if stopped_by_user else int(manager.returncode or 1)


class _Watcher(threading.Thread):
    """Says when the service is ready, has Redis' file synced every second, and ends the service
    when Redis dies under it."""

    def __init__(self, settings: Settings, server: EmbeddedRedis | None) -> None:
        super().__init__(daemon=True)
        self._url = f"http://{_reachable(settings.host)}:{settings.port}/ready"
        self._server = server
        self._stopped = threading.Event()
        self._began = time.monotonic()
        self.redis_died = False

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        ready = False
        synced_at = 0.0
        while not self._stopped.wait(0.25):
            if self._server and not self._server.running():
                self.redis_died = True
                _say(
                    "The embedded Redis ended by itself; see redis.log in "
                    + str(self._server.folder)
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if self._server and time.monotonic() - synced_at > SYNC_SECONDS:
                self._server.sync()
                synced_at = time.monotonic()
            if not ready and (processes := self._ready_processes()):
                ready = True
                seconds = time.monotonic() - self._began
                _say(f"Ready after {seconds:.1f} s: {processes} worker processes have their model.")

    def _ready_processes(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=1) as answer:  # noqa: S310
                return int(json.load(answer)["ready_processes"])
        except (OSError, urllib.error.HTTPError, ValueError):
            return 0


def _announce(
    settings: Settings, model: ModelChoice, auth: str, server: EmbeddedRedis | None
) -> None:
    host = _reachable(settings.host)
    where = f"embedded, {server.url}" if server else settings.masked_redis_url()
    lines: list[tuple[str, str | Callable[[], str]]] = [
        ("service", f"http://{host}:{settings.port}  (API documentation: /docs)"),
        ("Flower", f"http://{host}:{settings.flower_port}  user and password: {auth}"),
        ("Redis", where),
        ("model", f"{model.path}, because {model.reason}"),
        ("workers", f"{settings.worker_concurrency} processes (WORKER_CONCURRENCY)"),
        (
            "access",
            f"{len(settings.api_keys)} API keys"
            if settings.api_keys
            else "open to everyone who reaches the port; set API_KEYS to change that",
        ),
    ]
    for name, text in lines:
        _say(f"{name:>8}: {text}")


def _check_port(host: str, port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = f"stop what uses it, or set {name}"
            if name == "EMBEDDED_REDIS_PORT":
                hint += f", or use that server with REDIS_URL=redis://127.0.0.1:{port}/0"
            raise StartupError(
                f"Port {port} on {host} cannot be used ({error.strerror}): {hint}."
            ) from None


def _check_redis(settings: Settings) -> None:
    client = connect(settings.redis_url, timeout_seconds=5)
    try:
        client.ping()
    except (*UNAVAILABLE, Exception) as error:
        raise StartupError(
            f"The Redis at REDIS_URL={settings.masked_redis_url()} does not answer: {error}"
        ) from None
    finally:
        client.close()


def _stored_password(data_dir: Path) -> str:
    """Flower shows jobs and can stop workers; it never starts without a password."""
    path = data_dir / "flower-password"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text("admin:" + secrets.token_urlsafe(12))
    return path.read_text().strip()


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104


def _say(text: str) -> None:
    print(text, flush=True)
