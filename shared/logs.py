"""Sets up logs: text for a terminal, or one JSON object a line with the task's id."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

from shared.settings import Settings

current_task_id: ContextVar[str] = ContextVar("current_task_id", default="")
"""Set while a job is worked on or answered for. Every line logged in that time carries it."""


@contextmanager
def about_task(task_id: str) -> Iterator[None]:
    """Lines logged inside this context are about this job."""
    token = current_task_id.set(task_id)
    try:
        yield
    finally:
        current_task_id.reset(token)


_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


class _TaskId(logging.Filter):
    """Gives a line the id of its job: the job at work, or else the id in the line's text. Celery's
    own lines and those of a worker's parent are written where no job is at work."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        task_id = current_task_id.get()
        if not task_id and (found := _ID.search(text)):
            task_id = found.group()
        suffix = f" [{task_id}]" if task_id and task_id not in text else ""
        vars(record).update(task_id=task_id, task_suffix=suffix)
        return True


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, and `task_id` and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if task_id := getattr(record, "task_id", ""):
            line["task_id"] = task_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_config(settings: Settings, stream: TextIO | None = None) -> dict[str, object]:
    """A `logging.config` dictionary for every process."""
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"task_id": {"()": _TaskId}},
        "formatters": {
            "text": {
                "format": "%(asctime)s %(levelname)s %(name)s: %(message)s%(task_suffix)s",
                "datefmt": "%H:%M:%S",
            },
            "json": {"()": JsonLines},
        },
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "stream": stream or "ext://sys.stderr",
                "formatter": settings.log_format,
                "filters": ["task_id"],
            }
        },
        "root": {"handlers": ["out"], "level": level},
        "loggers": {
            # billiard's: without a handler of its own it would print unformatted lines.
            "multiprocessing": {"handlers": ["out"], "level": "WARNING", "propagate": False},
            # Two lines a job, one of them with the whole result; ours is one short line.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "uvicorn.access": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
        },
    }


def configure_logs(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up the logs of this process, to standard error unless another stream is given."""
    logging.config.dictConfig(log_config(settings, stream))
    logging.captureWarnings(True)
    if settings.log_format == "json":
        sys.excepthook = _log_crash
        threading.excepthook = _log_crashed_thread


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """An uncaught exception as one line instead of a traceback of many."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("yolo_queue").critical("crashed", exc_info=(kind, error, traceback))


def _log_crashed_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        logging.getLogger("yolo_queue").error(
            "a thread crashed", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )
