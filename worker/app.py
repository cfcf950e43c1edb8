"""The Celery app: `celery -A worker.app worker`, `... inspect active`, `... flower`.

Importing this module reads the settings and opens no connection. The heavy imports (torch, OpenCV,
ultralytics) happen when a worker starts, not for `celery inspect` or Flower.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from typing import Any

import billiard.pool
from billiard import current_process
from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
)
from kombu import Exchange, Queue

from shared import tracing
from shared.errors import StartupError
from shared.job.keys import Keys
from shared.logs import configure_logs
from shared.settings import Settings, load_settings
from worker.celery_ext import control  # noqa: F401 - registers its command
from worker.celery_ext.broker_settings import broker_settings

log = logging.getLogger("yolo_queue.worker")

# Celery warns of root because of pickle, which this app does not accept.
warnings.filterwarnings("ignore", category=SecurityWarning)


def _queues(keys: Keys, settings: Settings) -> list[str]:
    """The lists that a worker takes from: the one of inline tasks, Celery's default queue, and the
    lanes of its models (shared/job/lua/common.lua)."""
    lanes = [lane for model in settings.models for lane in keys.lane_queues(model)]
    return [keys.queue, *lanes]


def create_app(settings: Settings) -> Celery:
    """The Celery app of one service. Reliability does not rest on the broker's redelivery: see
    docs/reliability.md for what each choice is for."""
    app = Celery("yolo-queue", include=["worker.tasks"])
    app.settings = settings
    keys = Keys(settings.yolo_queue)
    app.conf.update(
        # JSON alone, in every direction: a pickled message is refused before it is decoded.
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_accept_content=["json"],
        event_serializer="json",
        result_expires=settings.result_ttl_seconds,
        # Taken from in turn.
        task_default_queue=settings.yolo_queue,
        task_queues=[
            Queue(name, Exchange(""), routing_key=name) for name in _queues(keys, settings)
        ],
        task_create_missing_queues=False,
        # A worker takes a message only when a pool process is free for it. (Two in hand for each
        # process gave 33.7 images/s instead of 33.3: not worth a job that waits beside a free one.)
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_acks_late=True,
        # After a loss the job's record decides, not the broker (celery_ext/crashed_process.py).
        task_reject_on_worker_lost=False,
        task_acks_on_failure_or_timeout=True,
        task_soft_time_limit=settings.task_time_limit_seconds,
        task_time_limit=settings.task_hard_limit_seconds,
        worker_concurrency=settings.worker_concurrency,
        # In KiB; None: never. A process is replaced between two jobs, so none is lost.
        worker_max_memory_per_child=settings.max_process_bytes // 1024 or None,
        # Loading a model takes longer than the 4 s Celery gives a new process by default.
        worker_proc_alive_timeout=600,
        worker_pool="worker.celery_ext.crashed_process:TaskPool",
        worker_consumer="worker.celery_ext.consumer:JobConsumer",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        **broker_settings(
            settings.redis_url,
            {
                # Redelivery by the broker is only a net below the leases: a job that is running or
                # done is dropped when it comes again, so a long timeout costs nothing.
                "visibility_timeout": int(max(3600, settings.task_hard_limit_seconds * 4)),
                "priority_steps": [0],
                "queue_order_strategy": "worker.celery_ext.fair_share:LeastServed",
                "socket_keepalive": True,
                "health_check_interval": 5,
            },
        ),
        # Flower lives on events.
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_track_started=False,
        timezone="UTC",
    )
    return app


try:
    settings = load_settings()
except StartupError as error:
    raise SystemExit(f"yolo-queue worker: {error.message}") from None
app = create_app(settings)


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logs(settings)


@worker_init.connect
def _prepare_parent(sender: Any, **_: Any) -> None:
    from worker.process.parent import prepare_parent

    if settings.log_format == "json":
        sender.quiet = True  # Celery's banner is for people
    # Celery sets logs up only after this signal, and there is something to log before.
    _set_up_logging()
    try:
        prepare_parent(settings, sender.hostname)
        # Without these imports the first job would be late.
        import worker.batch
        import worker.job  # noqa: F401

        tracing.load(settings)  # code alone, so that the processes share it
        _serve_metrics()
    except StartupError as error:
        log.critical("yolo-queue worker cannot start: %s", error.message)
        raise SystemExit(os.EX_CONFIG) from error
    except Exception as error:
        # Celery would log it and go on, with a worker that has no model.
        log.critical("yolo-queue worker cannot start", exc_info=error)
        raise SystemExit(os.EX_SOFTWARE) from error
    # What is loaded by now is never garbage. If a child collected it, the pages that it shares with
    # the parent would be copied one by one.
    gc.collect()
    gc.freeze()
    sender.app.steps["consumer"].add("worker.celery_ext.readiness:ConsumeWhileReady")
    sender.app.steps["consumer"].add("worker.celery_ext.heartbeat:Heartbeat")


def _serve_metrics() -> None:
    if settings.worker_metrics_port == 0:
        return
    from worker.celery_ext import heartbeat
    from worker.process import metrics
    from worker.process.parent import parent

    def snapshot() -> metrics.Snapshot:
        report, reported_at = heartbeat.last_report()
        models = tuple(parent().models.values())
        return metrics.Snapshot(parent().memory.counters(), report, reported_at, models)

    metrics.serve(settings.worker_metrics_host, settings.worker_metrics_port, snapshot)


@worker_process_init.connect
def _start_pool_process(**_: Any) -> None:
    from worker.process import child

    # A job that is handed over at the very moment of a SIGTERM is forgotten by the parent (in
    # Celery's `AsynPool.flush`), though it runs and is committed. At its end the process would wait
    # 30 s for the parent to take note of it; with this limit, 3 s.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30
    child.start(settings, current_process().index)


@worker_process_shutdown.connect
def _stop_pool_process(**_: Any) -> None:
    from worker.process import child

    child.stop()
