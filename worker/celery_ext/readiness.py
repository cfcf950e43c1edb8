"""Lets a worker take messages only for processes that have loaded their models.

Celery takes one for each process of the pool from the start. A worker that is still loading would
take jobs from workers that could run them at once, and keep them for as long as it loads.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state

from worker.process.parent import parent


def loaded_processes(pool: Any) -> int:
    """How many processes of Celery's prefork pool have loaded their models and are alive."""
    memory = parent().memory
    return sum(
        memory.row(process.index).loaded_pid == process.pid for process in list(pool._pool._pool)
    )


class ConsumeWhenLoaded(bootsteps.StartStopStep):  # type: ignore[misc]
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        qos = consumer.task_consumer.channel.qos
        may_consume = qos.can_consume  # a new object after each reconnection

        def can_consume() -> bool:
            room = len(state.reserved_requests) < loaded_processes(consumer.pool)
            return room and bool(may_consume())

        qos.can_consume = can_consume

    def stop(self, consumer: Any) -> None:
        pass
