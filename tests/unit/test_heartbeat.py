"""The worker parent's timers, and what it tells Flower of a task."""

from __future__ import annotations

from kombu import Connection
from kombu.asynchronous.timer import Timer

from worker.app import app
from worker.celery_ext.crashed_process import ARGUMENT_CHARACTERS, JobRequest
from worker.celery_ext.heartbeat import forget_cancelled


def test_cancelled_entries_are_forgotten_and_the_others_keep_their_order() -> None:
    timer = Timer()
    fired: list[int] = []
    entries = [timer.call_after(-1 + number / 1000, fired.append, (number,)) for number in range(9)]
    for number in (0, 3, 4, 8):
        entries[number].cancel()
    forget_cancelled(timer)
    assert len(timer) == 5
    for _ in range(5):
        _, entry = next(iter(timer))
        entry()
    assert fired == [1, 2, 5, 6, 7]


def test_inline_images_are_shortened_for_flower() -> None:
    app.loader.import_default_modules()
    with Connection("memory://") as connection:
        sent = app.amqp.as_task_v2("id", "yolo.detect", [], {"image": "A" * 5000})
        queue = connection.SimpleQueue("q")
        queue.put(sent.body, headers={**sent.headers, "kwargsrepr": "A" * 5000})
        message = queue.get(timeout=5)
        request = JobRequest(message, app=app, task=app.tasks["yolo.detect"])
        assert len(request.kwargsrepr) == ARGUMENT_CHARACTERS
        assert len(request.argsrepr) <= ARGUMENT_CHARACTERS
        queue.close()
