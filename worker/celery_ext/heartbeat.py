"""Owns a worker's signs of life: a heartbeat that renews leases, reports ready processes, and
recovers what others have lost.

Runs on the timer of the worker parent's event loop: no thread, no separate janitor. Every worker
does it, so work is recovered as long as one is alive.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker import state
from kombu import Consumer, Exchange, Producer, Queue

from shared.job.worker_store import HEARTBEAT_SECONDS, WorkerStore
from shared.redis_access.client import UNAVAILABLE
from worker.process import child as pool_process

log = logging.getLogger("yolo_queue.worker")

CONSUMING_SECONDS = 10
"""Without an echo for so long, an idle worker is not consuming."""

_store: WorkerStore | None = None
_last_beat: tuple[dict[str, Any], float] = ({}, 0.0)


def parent_store() -> WorkerStore | None:
    """The parent's store, once its consumer has started."""
    return _store


def last_beat() -> tuple[dict[str, Any], float]:
    """The report of the last heartbeat that Redis took and its time in epoch seconds; both empty
    before the first. Any thread may ask."""
    return _last_beat


def forget_cancelled(timer: Any) -> None:
    """Take cancelled entries out of a kombu timer.

    Celery starts a timer for each job's time limit and cancels it when the job ends; kombu keeps a
    cancelled entry, and what it refers to, until its time would have come: half a KB a job.
    """
    queue = timer._queue  # kept: the event loop iterates over this very list
    queue[:] = [event for event in queue if not event.entry.canceled]
    heapq.heapify(queue)


class _LastBeats(threading.Thread):
    """Keeps the leases of the jobs that a stopping worker finishes, until it has. Celery's event
    loop, which beats before, does not run any more."""

    def __init__(self, store: WorkerStore, running: list[str]) -> None:
        super().__init__(daemon=True, name="last beats")
        self._store = store
        self._running = running
        self._ended = threading.Event()
        worker_shutdown.connect(self._end)

    def run(self) -> None:
        report = {**_last_beat[0], "ready": 0}
        while True:
            # To renew what has ended meanwhile does nothing.
            mates = pool_process.mates_of(self._running)
            with suppress(*UNAVAILABLE, redis.OutOfMemoryError):
                self._store.heartbeat(pool_process.worker_name(), report, [*self._running, *mates])
            if self._ended.wait(HEARTBEAT_SECONDS):
                return

    def _end(self, **_: Any) -> None:
        self._ended.set()
        self.join(timeout=HEARTBEAT_SECONDS)
        _leave(self._store)


def _leave(store: WorkerStore) -> None:
    # If Redis is away, the entry goes by itself after three missed beats.
    with suppress(*UNAVAILABLE, redis.OutOfMemoryError):
        store.leave(pool_process.worker_name())


class Presence(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts and stops with the consumer, so also around every reconnect to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._echo: Consumer | None = None
        self._echoed_at = 0.0
        self._probe_pending = False

    def start(self, consumer: Any) -> None:
        global _store
        settings = consumer.app.settings
        if _store is None:
            # Short, since it holds up the event loop: a beat that fails is followed by another.
            _store = WorkerStore(settings, timeout_seconds=1.5)
        self._listen(consumer, settings.yolo_queue)
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(HEARTBEAT_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if _store is None:
            return
        running = [request.id for request in list(state.active_requests)]
        # An exit status, which may be 0, once the worker is told to stop.
        stopping = state.should_stop is not None and state.should_stop is not False
        if running and stopping:
            _LastBeats(_store, running).start()
            return
        # Once the broker connection is closed, nobody takes work here.
        _leave(_store)

    def _listen(self, consumer: Any, queue: str) -> None:
        """Consume a queue of one's own on the very channel that jobs come through: an echo there
        proves that jobs would come too, which an answer to ping does not."""
        channel = consumer.task_consumer.channel
        name = f"{queue}.probe.{pool_process.worker_name()}"
        self._probe = Queue(name, Exchange(""), routing_key=name, durable=False)
        self._echo = Consumer(
            channel, [self._probe], callbacks=[self._heard], no_ack=True, accept=["json"]
        )
        self._echo.consume()
        self._producer = Producer(channel, exchange=Exchange(""), serializer="json")
        self._probe_pending = False
        self._echoed_at = time.monotonic()

    def _heard(self, body: Any, message: Any) -> None:
        self._probe_pending = False
        self._echoed_at = time.monotonic()

    def _beat(self, consumer: Any) -> None:
        global _last_beat
        if error := pool_process.load_error():
            log.critical("yolo-queue worker: %s", error)
            consumer.controller.exitcode = os.EX_CONFIG
            state.should_terminate = True  # not should_stop: it would wait for the children
            return
        store = _store
        if store is None:
            return
        forget_cancelled(consumer.timer)
        running = [request.id for request in list(state.active_requests)]
        mates: list[str] = []
        if consumer.app.settings.micro_batch_jobs > 1:
            mates = pool_process.mates_of(running)
        try:
            report = self._report(consumer, len(running))
            report["running"] += len(mates)
            recovered = store.heartbeat(pool_process.worker_name(), report, [*running, *mates])
            _last_beat = (report, time.time())
            self._probe_if_due(store)
        except (*UNAVAILABLE, redis.OutOfMemoryError) as error:
            log.warning("no heartbeat: %s", error)
            return
        if recovered.requeued or recovered.dead or recovered.republished:
            log.warning(
                "recovered jobs of lost workers: %d requeued, %d dead letters, %d messages renewed",
                recovered.requeued,
                recovered.dead,
                recovered.republished,
            )

    def _report(self, consumer: Any, running: int) -> dict[str, Any]:
        live = {process.pid for process in consumer.pool._pool._pool}
        loaded = len(live & pool_process.loaded_pids())
        idle_seconds = time.monotonic() - self._echoed_at
        consuming = running >= loaded or idle_seconds < CONSUMING_SECONDS
        if not consuming and loaded:
            log.warning("not consuming for %.0f s although the broker answers", idle_seconds)
        settings = consumer.app.settings
        return {
            "processes": len(live),
            "loaded": loaded,
            "ready": loaded if consuming else 0,
            "running": running,
            "consuming": consuming,
            "model": Path(settings.yolo_model).name,
        }

    def _probe_if_due(self, store: WorkerStore) -> None:
        if not self._probe_pending:
            self._producer.publish({}, routing_key=self._probe.name)
            # The queue of a worker that died must not stay behind.
            store.redis.expire(self._probe.name, 60)
            self._probe_pending = True
