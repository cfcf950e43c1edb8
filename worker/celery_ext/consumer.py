"""The worker's consumer of messages. It differs from Celery's in four ways: how it waits for a
Redis that is away, what it does with a message that cannot become a job, or that comes when the
worker is told to stop, and how often it sends events."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.log import get_logger

from worker.celery_ext.undeliverable import fault_of, keep, text_of

logger = get_logger("yolo_queue.worker")

RECONNECT_SECONDS = 2
"""Celery's own pause grows to 30 s, too long for a recovery within 10 s after a long outage."""

REFUSED_SECONDS = 1.0
"""Pause before the next attempt when Redis answers and refuses (it is full, or a replica). It
answers at once, so Celery would ask five times a second."""

EVENTS_SECONDS = 0.5
"""How late Flower sees events. Celery sends them at every turn of its loop, three times a job, and
waits for Redis each time: that was 40 % of the parent's work."""


def is_stopping() -> bool:
    """Whether this worker has been told to stop."""
    # Both are an exit status then, which may be 0.
    told = (state.should_stop, state.should_terminate)
    return any(status is not None and status is not False for status in told)


class JobConsumer(Consumer):  # type: ignore[misc]
    _events_due = False

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(
            conn.ensure_connection,
            interval_start=1,
            interval_step=0,
            interval_max=RECONNECT_SECONDS,
        )
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        take = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> None:
            # Celery notices a SIGTERM at its next event, which may be this message. It would keep
            # it until the last running job has ended.
            if is_stopping():
                message.requeue()
            elif fault := fault_of(message):
                message.ack_log_error(logger, self.connection_errors)
                keep(text_of(message._raw), fault)
            else:
                take(message)

        return on_message

    def on_unknown_task(self, body: Any, message: Any, exc: Any) -> None:
        super().on_unknown_task(body, message, exc)
        keep(text_of(message._raw), f"no worker knows the task {exc}")

    def on_invalid_task(self, body: Any, message: Any, exc: Any) -> None:
        super().on_invalid_task(body, message, exc)
        keep(text_of(message._raw), str(exc))

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        time.sleep(REFUSED_SECONDS)

    def on_send_event_buffered(self) -> None:
        if not self._events_due:
            self._events_due = True
            self.timer.call_after(EVENTS_SECONDS, self._send_events)

    def _send_events(self) -> None:
        self._events_due = False
        self._flush_events()
