"""Owns how log lines look: text for a terminal, or one JSON object a line with the task's id."""

from __future__ import annotations

import json
import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime

from shared.settings import Settings

current_task_id: ContextVar[str] = ContextVar("current_task_id", default="")
"""Set while a job is worked on or answered for; every line logged meanwhile carries it."""


class _TaskId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        task_id = current_task_id.get()
        vars(record).update(task_id=task_id, task_suffix=f" [{task_id}]" if task_id else "")
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


def log_config(settings: Settings) -> dict[str, object]:
    """A `logging.config` dictionary for every process; uvicorn takes it too."""
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
                "stream": "ext://sys.stderr",
                "formatter": settings.log_format,
                "filters": ["task_id"],
            }
        },
        "root": {"handlers": ["out"], "level": level},
        "loggers": {
            # Two lines a job, one of them with the result in it; ours says it in one.
            "celery.app.trace": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "uvicorn.access": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
        },
    }


def configure_logs(settings: Settings) -> None:
    logging.config.dictConfig(log_config(settings))
