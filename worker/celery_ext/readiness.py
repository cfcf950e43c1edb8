"""Lets a worker take messages only while it can run them: no more than it has processes with loaded
models, and none once it is told to stop.

Celery takes one for each process of the pool from the start, and waits for messages until the pool
has stopped. A worker that loads, or that still runs a job while it stops, would keep jobs from
workers that could run them at once.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state

from worker.celery_ext.consumer import is_stopping
from worker.celery_ext.transport import end_poll
from worker.process.parent import parent


def loaded_processes(pool: Any) -> int:
    """How many processes of Celery's prefork pool have loaded their models and are alive."""
    memory = parent().memory
    return sum(
        memory.row(process.index).loaded_pid == process.pid for process in list(pool._pool._pool)
    )


class ConsumeWhileReady(bootsteps.StartStopStep):  # type: ignore[misc]
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        qos = consumer.task_consumer.channel.qos
        may_consume = qos.can_consume  # a new object after each reconnection

        def can_consume() -> bool:
            room = len(state.reserved_requests) < loaded_processes(consumer.pool)
            return room and bool(may_consume())

        qos.can_consume = can_consume

    def stop(self, consumer: Any) -> None:
        if is_stopping() and consumer.task_consumer:
            end_poll(consumer.task_consumer.channel)  # what comes now is given back (consumer.py)
