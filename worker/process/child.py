"""A pool process: its detector, its store, and the row of shared memory that it writes."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shared import tracing
from shared.errors import StartupError
from shared.job.queue_state import SHORT_VERSION
from shared.job.record import Attempt
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from shared.settings import Settings
from worker.model.runtimes import check_version
from worker.process.cores import threads_per_process
from worker.process.parent import parent
from worker.process.shared_memory import ProcessRow
from worker.retry import until_available

if TYPE_CHECKING:
    from worker.model.detector import Detector
    from worker.model.images import DecodedImage

log = logging.getLogger("yolo_queue.worker")

RELOAD_SECONDS = 5


@dataclass(slots=True)
class KeptPicture:
    """The decoded picture of the job whose part this process has run. Its next part does not need
    it decoded again; any other job drops it first."""

    task_id: str = ""
    decoded: DecodedImage | None = None

    def keep(self, task_id: str, decoded: DecodedImage) -> None:
        self.task_id, self.decoded = task_id, decoded

    def forget(self) -> None:
        self.task_id, self.decoded = "", None


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """What the tasks of this process work with. `detectors`: by the model's name. `worker`: the
    name its leases are held under."""

    settings: Settings
    detectors: dict[str, Detector]
    store: WorkerStore
    worker: str
    row: ProcessRow
    models_taken: Callable[[], Collection[str]]
    """The models whose jobs this worker takes now (`Parent.models_taken`)."""
    kept: KeptPicture = field(default_factory=KeptPicture)

    def detector_of(self, attempt: Attempt) -> Detector:
        """Of the model that the job is for; `claim` gives this process no other."""
        return self.detectors[attempt.record.model]


_this: PoolProcess | None = None


def start(settings: Settings, index: int) -> None:
    """Make this process' own detectors and connections. Call it after the fork.

    `index`: its place in the pool, counted from 0.
    """
    global _this
    # Out of the parent's process group: a signal meant for the service (Ctrl-C, a supervisor that
    # stops a group) must reach the parent alone, which lets its children finish their jobs.
    os.setpgid(0, 0)
    detectors = _load_detectors(settings, index)
    tracing.start("yolo-queue-worker", settings)
    store = WorkerStore(settings)
    row = parent().memory.row(index)
    _this = PoolProcess(
        settings,
        detectors,
        store.retrying(until_available),
        parent().name,
        row,
        lambda: parent().models_taken,
    )
    _open_connection(store)
    row.announce_loaded(os.getpid())
    loaded = ", ".join(
        f"{one.served.name} {one.served.version[:SHORT_VERSION]} on {one.device} "
        f"({one.served.runtime})"
        for one in detectors.values()
    )
    log.info("pool process %d (pid %d) has loaded its models: %s", index, os.getpid(), loaded)


def _load_detectors(settings: Settings, index: int) -> dict[str, Detector]:
    """Load the models. If no process of this worker could, its parent stops the worker. If others
    could, a model has disappeared since: they go on, and this process is replaced."""
    from worker.model.detector import Detector

    threads = threads_per_process(settings.worker_concurrency)
    detectors = {}
    try:
        for number, (name, model) in enumerate(parent().models.items()):
            check_version(model)
            detector = Detector(settings, model, process_index=index, threads=threads)
            parent().memory.describe(number, json.dumps(describe(detector)))
            detectors[name] = detector
        return detectors
    except Exception as error:
        message = error.message if isinstance(error, StartupError) else repr(error)
    memory = parent().memory
    if not any(map(_is_alive, memory.loaded_pids())):
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def describe(detector: Detector) -> dict[str, Any]:
    """What `GET /models` says of a model."""
    return {"task": detector.task, "names": detector.names}


def _open_connection(store: WorkerStore) -> None:
    """Claim a job that does not exist, so that the first real one finds the connection open and the
    script loaded; in the background if Redis is away now, since a process that waits here can
    neither take a job nor be told to stop."""
    nobody = str(uuid4())  # a producer may call its job anything

    def claim() -> None:
        store.claim(nobody, parent().name, [])

    try:
        claim()
    except UNAVAILABLE:
        threading.Thread(target=until_available, args=(claim,), daemon=True).start()


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
