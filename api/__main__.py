"""Starts the gateway with the settings of the environment: `python -m api`."""

from __future__ import annotations

import gc
import logging
import os

import uvicorn

from api.app import create_app
from api.connection_limiter import KEEP_ALIVE_SECONDS, ConnectionLimiter
from api.http_protocol import protocol_for
from api.malloc import keep_memory
from api.open_files import connection_limits, raise_open_files_limit
from shared.errors import StartupError
from shared.logs import configure_logs
from shared.settings import load_settings

DRAIN_SECONDS = 30
"""After SIGTERM no new connections are accepted, and requests under way get this long."""


def main() -> None:
    try:
        settings = load_settings()
    except StartupError as error:
        raise SystemExit(f"yolo-queue gateway: {error.message}") from None
    configure_logs(settings)
    keep_memory()
    try:
        limiter = ConnectionLimiter(connection_limits(settings, raise_open_files_limit()))
        app = create_app(settings, limiter)
    except StartupError as error:
        logging.getLogger("yolo_queue.api").critical("%s", error)
        raise SystemExit(os.EX_CONFIG) from error
    # What is loaded by now is never garbage. Searching it again and again was 4 % of the CPU time.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        http=protocol_for(limiter),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # by TRUSTED_PROXIES (api/app.py), not by uvicorn's own variable
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=2048,
    )


if __name__ == "__main__":
    main()
