"""The server on which proofs run, and the bounds that they run with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from shared.settings import Settings
from tests.support.stack import free_port
from yolo_queue.server.embedded_redis import EmbeddedRedis

_SMALL: dict[str, Any] = {
    "max_attempts": 3,
    "lease_seconds": 10,
    "max_queue_seconds": 120,
    "max_queue_jobs": 5,
    "max_queue_bytes": 60,
    "max_image_pixels": 40,
    "result_ttl_seconds": 60,
    "dead_max_jobs": 2,
    "dead_max_bytes": 30,
}


def small(**bounds: Any) -> Settings:
    """Bounds so small that short histories reach them."""
    return Settings(yolo_model="model.pt", **(_SMALL | bounds))


@contextmanager
def proof_server(folder: Path) -> Iterator[int]:
    """The port of a server without a file, since its state comes with every call."""
    server = EmbeddedRedis(folder, free_port(), max_bytes=1 << 28)
    server.start()
    try:
        with redis.Redis(port=server.port) as client:
            client.config_set("appendonly", "no")
        yield server.port
    finally:
        server.stop()
