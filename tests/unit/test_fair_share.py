"""The order in which a worker takes from its queues."""

from __future__ import annotations

from collections import Counter

import pytest

from shared.job.keys import part_of
from shared.job.message import task_message
from shared.tiling import PART_PASSES
from worker.celery_ext.fair_share import LeastServed

ID = "0123abcd-0123-0123-0123-0123456789ab"
PICTURE, PART = (task_message(task_id, "q").encode() for task_id in (ID, part_of(ID, 3)))


def taken(cycle: LeastServed, waiting: dict[str, list[bytes]], number: int) -> list[str]:
    """The queues that messages come from, as Redis would choose: the first that has any."""
    order = []
    for _ in range(number):
        queue = next(name for name in cycle.consume(len(waiting)) if waiting[name])
        cycle.weigh(waiting[queue].pop())
        cycle.rotate(queue)
        order.append(queue)
    return order


@pytest.fixture
def cycle() -> LeastServed:
    cycle = LeastServed()
    cycle.update(["a", "b", "c"])
    return cycle


def test_pictures_are_taken_in_turn(cycle: LeastServed) -> None:
    waiting = {name: [PICTURE] * 9 for name in "abc"}
    assert "".join(taken(cycle, waiting, 9)) == "abcabcabc"


def test_a_part_is_worth_several_pictures(cycle: LeastServed) -> None:
    waiting = {"a": [PART] * 9, "b": [PICTURE] * 99, "c": [PICTURE] * 99}
    counts = Counter(taken(cycle, waiting, 3 * (1 + 2 * PART_PASSES)))
    assert counts == {"a": 3, "b": 3 * PART_PASSES, "c": 3 * PART_PASSES}


def test_a_queue_that_was_empty_saves_nothing_up(cycle: LeastServed) -> None:
    waiting = {"a": [PICTURE] * 99, "b": [], "c": []}
    taken(cycle, waiting, 50)
    waiting["b"] = [PICTURE] * 99
    assert "".join(taken(cycle, waiting, 6)) == "bababa"


def test_who_had_a_part_waits_for_the_others_alone(cycle: LeastServed) -> None:
    waiting = {"a": [PART] * 9, "b": [], "c": []}
    assert taken(cycle, waiting, 3) == ["a", "a", "a"], "nobody else is there"
    waiting["b"] = [PICTURE]
    assert taken(cycle, waiting, 2) == ["b", "a"]


def test_a_long_message_is_not_searched(cycle: LeastServed) -> None:
    """An inline task has its image in front of its id."""
    cycle.weigh(PART + b" " * 9000)
    cycle.rotate("a")
    assert "".join(taken(cycle, {name: [PICTURE] * 2 for name in "abc"}, 6)) == "bcabca"


def test_queues_may_come_and_go(cycle: LeastServed) -> None:
    waiting = {name: [PICTURE] * 9 for name in "abcd"}
    taken(cycle, waiting, 4)
    cycle.update(["d", "a"])
    assert set(taken(cycle, waiting, 2)) == {"a", "d"}
    cycle.rotate("gone")
    assert set(cycle.consume(2)) == {"a", "d"}
