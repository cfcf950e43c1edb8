from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.logs import about_task, configure_logs
from shared.settings import Settings

ONE = "89b12cb1-0f3e-4c8a-9a58-0123456789ab"
OTHER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as JSON. Everything that the set-up changes is put back."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.stderr)
    import threading

    thread_hook, handlers, level = threading.excepthook, root.handlers[:], root.level
    out = io.StringIO()
    configure_logs(Settings(log_format="json"), out)
    yield out
    logging.captureWarnings(False)
    threading.excepthook = thread_hook
    sys.excepthook = hooks[0]
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(lines: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_line_has_the_id_of_its_job(lines: io.StringIO) -> None:
    log = logging.getLogger("celery.worker.request")
    log.info("nothing to do with a job")
    log.error("Hard time limit (%ss) exceeded for %s[%s]", 65, "yolo.detect", ONE)
    with about_task(OTHER):
        log.info("at work")
        log.info("at work, and looking at %s", ONE)
    none, from_text, at_work, both = logged(lines)
    assert "task_id" not in none
    assert from_text["task_id"] == ONE
    assert at_work["task_id"] == both["task_id"] == OTHER


def test_an_exception_is_one_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("a text\nof two lines")
    except ValueError:
        logging.getLogger("yolo_queue.worker").exception("unexpected error")
    (line,) = logged(lines)
    assert line["level"] == "error"
    assert "ValueError: a text\nof two lines" in line["exception"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "crashed"),
        (
            "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
            "a t",
        ),
    ],
)
def test_a_crash_is_one_line(code: str, message: str) -> None:
    program = (
        "from shared.logs import configure_logs; from shared.settings import Settings;"
        f"configure_logs(Settings(log_format='json')); {code}"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    (line,) = out.stderr.splitlines()
    told = json.loads(line)
    assert told["message"].startswith(message)
    assert "ZeroDivisionError" in told["exception"]


def test_a_warning_is_a_line() -> None:
    program = (
        "from shared.logs import configure_logs; from shared.settings import Settings;"
        "configure_logs(Settings(log_format='json'));"
        "import warnings; warnings.warn('beware')"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    (line,) = out.stderr.splitlines()
    assert "beware" in json.loads(line)["message"]
