"""The heartbeat of a worker: renews leases, reports ready processes, recovers what others have
lost.

It runs on the timer of the parent's event loop: no thread, no process of its own. Every worker has
one, so lost jobs are recovered as long as one worker is alive.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker import state
from kombu import Consumer, Exchange, Producer, Queue
from kombu.asynchronous import set_event_loop

from shared.job.keys import HEARTBEAT_SECONDS
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from worker.celery_ext.consumer import is_stopping
from worker.celery_ext.readiness import loaded_processes
from worker.process.parent import parent

log = logging.getLogger("yolo_queue.worker")

CONSUMING_SECONDS = 10
"""An idle worker that has not received its own probe for so long does not consume."""
PROBE_TTL_SECONDS = 60

_store: WorkerStore | None = None
_last_report: tuple[dict[str, Any], float] = ({}, 0.0)


def parent_store() -> WorkerStore | None:
    """The parent's store, once its consumer has started."""
    return _store


def last_report() -> tuple[dict[str, Any], float]:
    """The report of the last heartbeat that Redis took and its time in epoch seconds; both empty
    before the first. Any thread may ask."""
    return _last_report


def running_jobs(celery_jobs: Collection[str]) -> list[str]:
    """The jobs that Celery knows of, and those that share a forward pass with them."""
    return [*celery_jobs, *parent().memory.batched_with(celery_jobs)]


def forget_cancelled(timer: Any) -> None:
    """Take cancelled entries out of a kombu timer.

    Celery starts a timer for each job's time limit and cancels it when the job ends. Kombu keeps a
    cancelled entry, and what it refers to, until its time would have come: half a KB a job.
    """
    live = [event for event in timer.queue if not event.entry.cancelled]
    timer.clear()
    for event in live:
        timer.enter_at(event.entry, event.eta, event.priority)


class _LastHeartbeats(threading.Thread):
    """Keeps the leases of the jobs that a stopping worker still finishes. Until then the heartbeat
    ran on Celery's event loop, which has stopped by now."""

    def __init__(self, store: WorkerStore, jobs: list[str]) -> None:
        super().__init__(daemon=True, name="last heartbeats")
        self._store = store
        self._jobs = jobs
        self._ended = threading.Event()
        worker_shutdown.connect(self._end)

    def run(self) -> None:
        report = {**_last_report[0], "ready": 0}
        while True:
            # Renewing a job that has ended meanwhile does nothing.
            with suppress(*UNAVAILABLE):
                self._store.heartbeat(parent().name, report, running_jobs(self._jobs))
            if self._ended.wait(HEARTBEAT_SECONDS):
                return

    def _end(self, **_: Any) -> None:
        self._ended.set()
        self.join(timeout=HEARTBEAT_SECONDS)
        _leave(self._store)


def _describe(store: WorkerStore, models: Collection[str]) -> None:
    """Tell gateways what these models are, if a process has loaded them."""
    for number, (name, model) in enumerate(parent().models.items()):
        if name in models and (description := parent().memory.description(number)):
            store.describe_model(name, model.version, description)


def _leave(store: WorkerStore) -> None:
    # If Redis is away, the entry expires after three missed heartbeats.
    with suppress(*UNAVAILABLE):
        store.leave(parent().name)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts and stops with the consumer, so also around every reconnection to the broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._probe_consumer: Consumer | None = None
        self._probed_at = 0.0
        self._probe_pending = False

    def start(self, consumer: Any) -> None:
        global _store
        if _store is None:
            # Short, since it blocks the event loop: a heartbeat that fails is followed by another.
            _store = WorkerStore(consumer.app.settings, timeout_seconds=1.5)
        # After a lost connection Celery resets the event loop, and kombu forgets which one it was.
        # Acknowledgements would then be written at once, each in a round trip of its own.
        set_event_loop(consumer.hub)
        self._consume_probes(consumer, _store.keys.probe(parent().name))
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(HEARTBEAT_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if _store is None:
            return
        jobs = [request.id for request in list(state.active_requests)]
        if jobs and is_stopping():
            _LastHeartbeats(_store, jobs).start()
            return
        # Once the broker connection is closed, this worker takes no jobs.
        _leave(_store)

    def _consume_probes(self, consumer: Any, name: str) -> None:
        """Consume a queue of this worker's own on the very channel that jobs come through. A probe
        that arrives there proves that jobs would arrive too; an answer to ping does not."""
        channel = consumer.task_consumer.channel
        self._probe = Queue(name, Exchange(""), routing_key=name, durable=False)
        self._probe_consumer = Consumer(
            channel, [self._probe], callbacks=[self._on_probe], no_ack=True, accept=["json"]
        )
        self._probe_consumer.consume()
        self._producer = Producer(channel, exchange=Exchange(""), serializer="json")
        self._probe_pending = False
        self._probed_at = time.monotonic()

    def _on_probe(self, body: Any, message: Any) -> None:
        self._probe_pending = False
        self._probed_at = time.monotonic()

    def _beat(self, consumer: Any) -> None:
        global _last_report
        if error := parent().memory.load_error:
            log.critical("yolo-queue worker cannot start: %s", error)
            consumer.controller.exitcode = os.EX_CONFIG
            state.should_terminate = True  # not should_stop: it would wait for the children
            return
        store = _store
        if store is None:
            return
        forget_cancelled(consumer.timer)
        celery_jobs = [request.id for request in list(state.active_requests)]
        jobs = running_jobs(celery_jobs)
        try:
            report = self._report(consumer, len(celery_jobs), len(jobs))
            recovered = store.heartbeat(parent().name, report, jobs)
            _last_report = (report, time.time())
            self._send_probe(store)
            _describe(store, recovered.unknown_models)
        except UNAVAILABLE as error:
            log.warning("no heartbeat: %s", error)
            return
        if recovered.requeued or recovered.dead or recovered.republished:
            log.warning(
                "recovered jobs of lost workers: %d requeued, %d dead letters, %d messages renewed",
                recovered.requeued,
                recovered.dead,
                recovered.republished,
            )

    def _report(self, consumer: Any, busy_processes: int, jobs: int) -> dict[str, Any]:
        loaded = loaded_processes(consumer.pool)
        if busy_processes >= loaded:  # it takes nothing, so no probe either
            self._probed_at = time.monotonic()
        idle_seconds = time.monotonic() - self._probed_at
        consuming = idle_seconds < CONSUMING_SECONDS
        if not consuming and loaded:
            log.warning("not consuming for %.0f s although the broker answers", idle_seconds)
        models, taken = parent().models, parent().models_taken
        return {
            "processes": len(consumer.pool.info["processes"]),
            "loaded": loaded,
            "ready": loaded if consuming and taken else 0,
            "running": jobs,
            "consuming": consuming,
            "models": {name: models[name].version for name in taken},
            "runtimes": {name: models[name].runtime for name in taken},
        }

    def _send_probe(self, store: WorkerStore) -> None:
        if not self._probe_pending:
            self._producer.publish({}, routing_key=self._probe.name)
            # The probe of a worker that died must not stay behind.
            store.redis.expire(self._probe.name, PROBE_TTL_SECONDS)
            self._probe_pending = True
