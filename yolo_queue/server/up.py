"""`yolo-queue up`, the command behind `make run`: runs the whole service on this machine.

Redis is started first and stopped last; the services run under honcho (services.py). Only one `up`
at a time uses a DATA_DIR (process_list.py), and what it starts ends with it, even if it is killed
(reaper.py). Accepted jobs wait in Redis' file.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
from pathlib import Path

import typer

from shared.errors import InvalidSettings, StartupError
from shared.redis_access.client import connect
from shared.settings import Settings, load_settings
from yolo_queue.server.embedded_redis import EmbeddedRedis
from yolo_queue.server.model_choice import ModelChoice, choose_model
from yolo_queue.server.process_list import REDIS, ProcessList
from yolo_queue.server.reaper import Reaper
from yolo_queue.server.services import run_services, stop_timeout_seconds
from yolo_queue.server.watchdog import Watchdog


def up() -> None:
    """Run the whole service: Redis (unless REDIS_URL is set), workers, gateway and Flower.

    Ctrl-C stops it: running jobs finish, and waiting jobs are kept for the next start.
    """
    try:
        raise typer.Exit(_run(load_settings()))
    except InvalidSettings as error:
        typer.echo(error.message)
        raise typer.Exit(2) from None
    except StartupError as error:
        typer.echo(error.message)
        raise typer.Exit(1) from None


def _run(settings: Settings) -> int:
    data_dir = Path(settings.data_dir).resolve()
    processes = ProcessList.acquire(data_dir, settings.port)
    try:
        _check_port(settings.host, settings.port, "PORT")
        _check_port(settings.host, settings.flower_port, "FLOWER_PORT")
        server = _embedded_redis(settings, data_dir)
        model = choose_model(settings, data_dir)
        reaper = Reaper(processes, stop_timeout_seconds(settings))
        try:
            return _serve(settings, data_dir, processes, model, server)
        finally:
            if server:
                _stop(server)
            reaper.dismiss()
    finally:
        processes.release()


def _serve(
    settings: Settings,
    data_dir: Path,
    processes: ProcessList,
    model: ModelChoice,
    server: EmbeddedRedis | None,
) -> int:
    if server:
        server.launch(inherit=[processes.lock])
        processes.add(REDIS, server.pid)
        server.wait_for_answer()
    auth = settings.flower_basic_auth.get_secret_value() or _stored_password(data_dir)
    _announce(settings, model, auth, server)
    environment = {
        **os.environ,
        "REDIS_URL": server.url if server else settings.redis_url.get_secret_value(),
        **model.environment,
        "FLOWER_BASIC_AUTH": auth,
        "PYTHONUNBUFFERED": "1",
    }
    watchdog = Watchdog(f"http://{_reachable(settings.host)}:{settings.port}", server)
    watchdog.start()
    try:
        code = run_services(settings, environment, data_dir, processes)
    finally:
        watchdog.stop()
    if server and watchdog.redis_died:
        typer.echo(f"{server.ending()}, so everything was stopped. Its log: {server.log_path}")
        typer.echo(f"Accepted jobs are kept in {server.folder}; `make run` continues them.")
        return 1
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return 0
    typer.echo(f"A process ended by itself (exit status {code}), so everything was stopped.")
    typer.echo("Accepted jobs are kept. See the lines above for the cause, then `make run` again.")
    return code or 1


def _embedded_redis(settings: Settings, data_dir: Path) -> EmbeddedRedis | None:
    """The server to start, or None if REDIS_URL names one. Raises `StartupError` if that one does
    not answer."""
    if "redis_url" in settings.model_fields_set:
        _check_redis(settings)
        return None
    _check_port("127.0.0.1", settings.embedded_redis_port, "EMBEDDED_REDIS_PORT")
    return EmbeddedRedis(
        data_dir / "redis",
        settings.embedded_redis_port,
        max_bytes=settings.embedded_redis_max_bytes,
    )


def _stop(server: EmbeddedRedis) -> None:
    if server.running():
        server.stop()
        typer.echo(f"Redis stopped; accepted jobs are in {server.folder}")


def _announce(
    settings: Settings, model: ModelChoice, auth: str, server: EmbeddedRedis | None
) -> None:
    host = _reachable(settings.host)
    where = f"embedded, {server.url}" if server else settings.masked_redis_url()
    lines = [
        ("service", f"http://{host}:{settings.port}  (API documentation: /docs)"),
        ("Flower", f"http://{host}:{settings.flower_port}  user and password: {auth}"),
        ("Redis", where),
        ("model", model.words),
        ("workers", f"{settings.worker_concurrency} processes (WORKER_CONCURRENCY)"),
        (
            "access",
            f"{len(settings.api_keys)} API keys"
            if settings.api_keys
            else "open to everyone who can reach the port; set API_KEYS to require a key",
        ),
    ]
    for name, text in lines:
        typer.echo(f"{name:>8}: {text}")


def _check_port(host: str, port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = f"stop what uses it (another `make run`?), or set {name} to a free one"
            if name == "EMBEDDED_REDIS_PORT":
                hint += f", or use that server with REDIS_URL=redis://127.0.0.1:{port}/0"
            raise StartupError(
                f"Port {port} on {host} cannot be used ({error.strerror}): {hint}."
            ) from None


def _check_redis(settings: Settings) -> None:
    client = connect(settings.redis_url, timeout_seconds=5)
    try:
        client.ping()
    except Exception as error:  # also of a broken certificate, a wrong password ...
        raise StartupError(
            f"The Redis at REDIS_URL={settings.masked_redis_url()} does not answer ({error}): "
            "start it, or unset REDIS_URL to use the embedded one."
        ) from None
    finally:
        client.close()


def _stored_password(data_dir: Path) -> str:
    """The password of Flower, made at the first start: Flower shows jobs and can stop workers."""
    path = data_dir / "flower-password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text("admin:" + secrets.token_urlsafe(12))
    return path.read_text().strip()


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
