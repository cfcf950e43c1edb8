"""Owns how long a worker waits between attempts to reach a Redis that is away."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery.worker.consumer import Consumer

RECONNECT_SECONDS = 2
"""Celery's own pause grows to 30 s; after a long outage that alone breaks recovery in 10 s."""


class PatientConsumer(Consumer):  # type: ignore[misc]
    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=1,
            interval_step=0,
            interval_max=RECONNECT_SECONDS,
        )
        return super().ensure_connected(conn)
