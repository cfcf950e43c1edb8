"""Owns `python -m api`: the gateway on uvicorn, set up by the environment."""

from __future__ import annotations

import gc
import logging
import os

import uvicorn

from api.app import create_app
from api.connections import KEEP_ALIVE_SECONDS, Connections, bounds, raise_descriptor_limit
from api.guarded_protocol import protocol_for
from api.malloc import keep_memory
from shared.errors import StartupError
from shared.logs import configure_logs
from shared.settings import load_settings

DRAIN_SECONDS = 30


def main() -> None:
    try:
        settings = load_settings()
    except StartupError as error:
        raise SystemExit(f"yolo-queue gateway: {error.message}") from None
    configure_logs(settings)
    keep_memory()
    try:
        connections = Connections(bounds(settings, raise_descriptor_limit()))
        app = create_app(settings)
    except StartupError as error:
        logging.getLogger("yolo_queue.api").critical("%s", error)
        raise SystemExit(os.EX_CONFIG) from error
    app.state.request_metrics.show_connections(connections)
    # What is loaded by now is never garbage; looking through it time and again was 4 % of the work.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        http=protocol_for(connections),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # TRUSTED_PROXIES decides (api/app.py), not uvicorn's own variable
        # SIGTERM: no new connections, then this long for the answers under way.
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=2048,
    )


if __name__ == "__main__":
    main()
