"""A pool process: its detector, its store, and the row of shared memory that it writes."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from shared import tracing
from shared.errors import StartupError
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from shared.settings import Settings
from worker.process.cores import threads_per_process
from worker.process.parent import parent
from worker.process.shared_memory import ProcessRow
from worker.retry import until_available

if TYPE_CHECKING:
    from worker.model.detector import Detector

log = logging.getLogger("yolo_queue.worker")

RELOAD_SECONDS = 5


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """What the tasks of this process work with. `worker`: the name its leases are held under."""

    settings: Settings
    detector: Detector
    store: WorkerStore
    worker: str
    row: ProcessRow


_this: PoolProcess | None = None


def start(settings: Settings, index: int) -> None:
    """Make this process' own detector and connections. Call it after the fork.

    `index`: its place in the pool, counted from 0.
    """
    global _this
    # Out of the parent's process group: a signal meant for the service (Ctrl-C, a supervisor that
    # stops a group) must reach the parent alone, which lets its children finish their jobs.
    os.setpgid(0, 0)
    detector = _load_detector(settings, index)
    tracing.start("yolo-queue-worker", settings)
    store = WorkerStore(settings)
    row = parent().memory.row(index)
    _this = PoolProcess(settings, detector, store.retrying(until_available), parent().name, row)
    _describe_model(store, detector)
    row.announce_loaded(os.getpid())
    log.info(
        "pool process %d (pid %d) has loaded its model on %s (%s)",
        index,
        os.getpid(),
        detector.device,
        detector.served.runtime,
    )


def _load_detector(settings: Settings, index: int) -> Detector:
    """Load the model. If no process of this worker could, its parent stops the worker. If others
    could, the model has disappeared since: they go on, and this process is replaced."""
    from worker.model.detector import Detector

    threads = threads_per_process(settings.worker_concurrency)
    try:
        return Detector(settings, parent().model, process_index=index, threads=threads)
    except Exception as error:
        message = error.message if isinstance(error, StartupError) else repr(error)
    memory = parent().memory
    if not memory.loaded_pids():
        memory.load_error = message
        signal.pause()  # a replacement would fail the same way; the parent stops the worker
    log.error(
        "this pool process cannot load the model that others of its worker have: %s. Another one "
        "tries in %d s",
        message,
        RELOAD_SECONDS,
    )
    time.sleep(RELOAD_SECONDS)
    os._exit(os.EX_CONFIG)


def _describe_model(store: WorkerStore, detector: Detector) -> None:
    """Tell gateways which model is served; in the background if Redis is away now, since a process
    that waits here can neither take a job nor be told to stop.

    Claiming a job that does not exist also opens the connection and loads the script, so that the
    first real job finds both.
    """
    nobody = str(uuid4())  # a producer may call its job anything

    def describe() -> None:
        store.describe_model(detector.model_name, detector.task, detector.names)
        store.claim(nobody, parent().name)

    try:
        describe()
    except UNAVAILABLE:
        threading.Thread(target=until_available, args=(describe,), daemon=True).start()


def stop() -> None:
    tracing.stop()
    if _this is not None:
        _this.store.redis.close()


def current() -> PoolProcess:
    """The pool process that this is."""
    if _this is None:
        raise RuntimeError("not in a pool process: use the prefork pool (celery's default)")
    return _this


def is_pool_process() -> bool:
    return _this is not None
