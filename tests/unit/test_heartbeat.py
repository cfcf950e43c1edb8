"""The worker parent's timers."""

from __future__ import annotations

from kombu.asynchronous.timer import Timer

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
