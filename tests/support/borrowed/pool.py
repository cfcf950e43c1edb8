"""Of Celery and billiard: the pool, its processes, and how a worker stops."""

from __future__ import annotations

from tests.support.borrowed.base import Borrowed, Name

ASYNPOOL = "celery.concurrency.asynpool:AsynPool"
PREFORK = "celery.concurrency.prefork:TaskPool"
REQUEST = "celery.worker.request:Request"
STATE = "celery.worker.state"
WORKER = "celery.apps.worker:Worker"
BILLIARD = "billiard.pool"

BORROWED = [
    Borrowed(
        "celery",
        "worker/celery_ext",
        "a process that died is noticed at once; Celery alone may take 5 s",
        [
            Name(f"{ASYNPOOL}._event_process_exit", takes="hub proc"),
            Name(f"{ASYNPOOL}._track_child_process", says="self._event_process_exit"),
            Name(f"{ASYNPOOL}._event_process_exit", says="self._untrack_child_process(proc, hub)"),
            Name(f"{ASYNPOOL}._event_process_exit", says="self.maintain_pool()"),
            Name(f"{ASYNPOOL}.maintain_pool", takes=""),
            Name(f"{PREFORK}.on_start", says="else self.Pool"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "the heartbeat counts the pool's processes; without them a worker is never ready",
        [
            Name(f"{PREFORK}.on_start", says="self._pool = Pool("),
            Name(f"{PREFORK}._get_info", says="for p in self._pool._pool"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "the attempt of a process that died or ran out of time is given back at once",
        [
            Name("celery.app.task:Task.Request"),
            Name("celery.worker.strategy:default", says="symbol_by_name(task.Request)"),
            Name(f"{REQUEST}.on_timeout", takes="soft timeout"),
            Name(f"{REQUEST}.on_failure", takes="exc_info send_failed_event return_ok"),
            Name(f"{REQUEST}.on_failure", says="isinstance(exc, (SystemExit, KeyboardInterrupt))"),
            Name(
                "celery.worker.request:create_request_cls", says="timeout_callback=self.on_timeout"
            ),
            Name("celery.worker.request:create_request_cls", says="error_callback=self.on_failure"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/tasks.py",
        "a hard time limit runs the task's failure hook in the parent, which must leave it alone",
        [
            Name(f"{REQUEST}.on_timeout", says="self.task.on_failure(exc, self.id"),
            Name("celery.app.task:Task.on_failure", takes="exc task_id ..."),
        ],
    ),
    Borrowed(
        "celery",
        "worker/celery_ext",
        "the heartbeat renews the leases of running jobs, and ends a worker that has no model",
        [
            Name(f"{STATE}:active_requests"),
            Name(f"{STATE}:should_stop"),
            Name(f"{STATE}:maybe_shutdown", says="raise WorkerTerminate(should_terminate)"),
            Name("celery.apps.worker:_shutdown_handler", says="'Warm': 'should_stop'"),
            Name("celery.worker.worker:WorkController.exitcode"),
            Name("celery.bin.worker", says="ctx.exit(worker.exitcode)"),
        ],
    ),
    Borrowed(
        "celery",
        "worker/app.py",
        "Celery's banner must not stand among JSON log lines",
        [
            Name(f"{WORKER}.on_before_init", says="self.quiet = quiet"),
            Name(f"{WORKER}.on_start", says="if not self.quiet: self.emit_banner()"),
        ],
    ),
    Borrowed(
        "billiard",
        "worker/celery_ext",
        "the exception in what Celery gets tells a lost process from a failed task",
        [
            Name("billiard.einfo:ExceptionWithTraceback.__init__", says="self.exc = exc"),
            Name("billiard.exceptions:WorkerLostError"),
        ],
    ),
    Borrowed(
        "billiard",
        "worker/process",
        "a stopping process waits 3 s for its parent to take note of a job, and not 30 s",
        [
            Name(f"{BILLIARD}:GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL", holds=(0.1).__eq__),
            Name(
                f"{BILLIARD}:Worker._ensure_messages_consumed",
                says="range(GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT)",
            ),
        ],
    ),
    Borrowed(
        "billiard",
        "worker/process",
        "a process has a place in the pool, its row in shared memory, and its successor takes it",
        [
            Name(f"{BILLIARD}:Pool._create_worker_process", says="w.index = i"),
            Name(f"{BILLIARD}:Pool._avail_index", says="set(p.index for p in self._pool)"),
            Name("billiard:current_process", takes=""),
        ],
    ),
    Borrowed(
        "billiard",
        "worker/process",
        "processes are forked: they share memory and code that the parent has prepared",
        [Name("billiard:get_start_method", holds=lambda method: bool(method() == "fork"))],
    ),
]
