"""Owns what one pool process holds: its detector, its store, and word to the parent that it is up.

The parent imports the heavy libraries once, so that its children share those pages and start
faster, but it never makes a model, runs an operation or touches CUDA: those do not survive a fork.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import billiard.pool
import redis
from billiard import current_process

from shared import tracing
from shared.errors import ModelUnavailable, StartupError
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from shared.settings import Settings
from worker.model.runtimes import ServedModel, prepare
from worker.model.weights import be_quiet_and_offline, fetch
from worker.process.cores import threads_per_process
from worker.process.counters import Row, Tally, Totals
from worker.process.mates import MatesBoard, MatesRow
from worker.retry import with_patience

if TYPE_CHECKING:
    from worker.model.detector import Detector

log = logging.getLogger("yolo_queue.worker")

_MAX_PROCESSES = 1024
_ERROR_AT = 4 * _MAX_PROCESSES
_ERROR_BYTES = 4096
_CELL = struct.Struct("=i")
# Shared between parent and children by the fork: the pid of each process that has its model, by
# its place in the pool, and the text of the error of one that could not load it.
_board = mmap.mmap(-1, _ERROR_AT + _ERROR_BYTES)
_tally = Tally(_MAX_PROCESSES)
_mates = MatesBoard(_MAX_PROCESSES)

DOWNLOAD_SECONDS = 120
RELOAD_SECONDS = 5


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """What tasks of this process work with."""

    settings: Settings
    detector: Detector
    store: WorkerStore
    worker: str
    """Name that the leases of this process' worker are under."""
    tally: Row
    """Where this process counts."""
    mates: MatesRow
    """Where it names the jobs that it runs beside Celery's."""


_this: PoolProcess | None = None
_worker = ""
_model = ServedModel(Path(), "", Path())


def name_worker(hostname: str) -> None:
    """In the parent, before the fork: a restarted worker has another name, so that it never renews
    the leases of its forerunner."""
    global _worker
    _worker = f"{hostname}/{os.getpid()}"


def worker_name() -> str:
    """The name that leases are under, the same in the parent and its children."""
    return _worker


def prepare_parent(settings: Settings, hostname: str) -> None:
    """In the parent, before the fork: get the weights, and load code but no model.

    Exits with one clear line if there are no weights to serve.
    """
    name_worker(hostname)
    global _model
    fetch(settings.yolo_model, timeout_seconds=DOWNLOAD_SECONDS)
    try:
        _model = prepare(settings)
    except ModelUnavailable as error:
        raise SystemExit(f"yolo-queue worker: {error.message}") from error
    be_quiet_and_offline()
    import torch  # noqa: F401
    import ultralytics.engine.results
    import ultralytics.models.yolo  # noqa: F401

    # What the first job would load, by which it would be late.
    from worker.model.openvino_backend import pixels_to_openvino

    if not pixels_to_openvino(_model):  # which does without it
        import torchvision  # noqa: F401


def start(settings: Settings) -> None:
    """In the child, after the fork: make this process' own detector and connections."""
    global _this
    # Out of the parent's process group: a signal meant for the service (Ctrl-C, a supervisor that
    # stops a group) must reach the parent alone, which lets its children finish their jobs.
    os.setpgid(0, 0)
    # A job that was handed over at the very moment of a SIGTERM is forgotten by the parent (in
    # Celery's `AsynPool.flush`), though it runs and is committed. Its process would wait 30 s at
    # its end for the parent to take note of it.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30
    index = current_process().index
    detector = _load_detector(settings, index)
    tracing.start("yolo-queue-worker", settings)
    store = WorkerStore(settings)
    _this = PoolProcess(
        settings, detector, store, _worker, _tally.process(index), _mates.row(index)
    )
    _describe_model(store, detector)
    _CELL.pack_into(_board, 4 * index, os.getpid())
    log.info(
        "pool process %d (pid %d) has its model on %s (%s)",
        index,
        os.getpid(),
        detector.device,
        detector.served.runtime,
    )


def _load_detector(settings: Settings, index: int) -> Detector:
    """Load the model. A worker whose first processes cannot is stopped by its parent; where one
    could, the model has gone since: those that have it go on, and this one is replaced."""
    from worker.model.detector import Detector

    threads = threads_per_process(settings.worker_concurrency)
    try:
        return Detector(settings, _model, process_index=index, threads=threads)
    except Exception as error:
        message = error.message if isinstance(error, StartupError) else repr(error)
    if not loaded_pids():
        _report_error(message)
        signal.pause()  # leaving now would only bring a replacement that fails, too
    log.error(
        "this pool process cannot load the model that others of its worker have: %s. Another one "
        "tries in %d s",
        message,
        RELOAD_SECONDS,
    )
    time.sleep(RELOAD_SECONDS)
    os._exit(os.EX_CONFIG)


def _describe_model(store: WorkerStore, detector: Detector) -> None:
    """Tell gateways what is served; if Redis is away or full, once it is not. A process that waited
    here could neither take its first job nor be told to stop.

    To claim a job that does not exist does nothing, but the first job then finds the connections
    open, and the server knows the script that it begins with.
    """
    nobody = str(uuid4())  # a producer may call its job anything

    def describe() -> None:
        store.describe_model(detector.model_name, detector.task, detector.names)
        store.claim(nobody, _worker)
        store.image(nobody)

    try:
        describe()
    except (*UNAVAILABLE, redis.OutOfMemoryError):
        threading.Thread(target=with_patience, args=(describe,), daemon=True).start()


def stop() -> None:
    tracing.stop()
    if _this is not None:
        _this.store.redis.close()


def is_parent() -> bool:
    return _this is None


def current() -> PoolProcess:
    """This process' detector and store."""
    if _this is None:
        raise RuntimeError("not in a pool process: use the prefork pool (celery's default)")
    return _this


def loaded_pids() -> set[int]:
    """In the parent: pids that have announced a loaded model (dead ones may be among them)."""
    return {pid for (pid,) in _CELL.iter_unpack(_board[:_ERROR_AT]) if pid}


def parent_tally() -> Row:
    """Where the parent counts what it sees from outside."""
    return _tally.parent()


def totals() -> Totals:
    """In the parent: what all processes have counted since the worker started."""
    return _tally.read(_places_used())


def mates_of(running: Collection[str]) -> list[str]:
    """In the parent: what its processes run in one batch with these jobs."""
    return _mates.mates_of(running, _places_used()) if running else []


def _places_used() -> int:
    pids = [pid for (pid,) in _CELL.iter_unpack(_board[:_ERROR_AT])]
    return max((place for place, pid in enumerate(pids, 1) if pid), default=0)


def served_model() -> ServedModel:
    """In the parent: what its processes load."""
    return _model


def load_error() -> str:
    """In the parent: why a child could not load its model, or an empty text."""
    return _board[_ERROR_AT:].split(b"\0", 1)[0].decode(errors="replace")


def _report_error(message: str) -> None:
    text = message.encode()[: _ERROR_BYTES - 1]
    _board[_ERROR_AT : _ERROR_AT + len(text)] = text
