from __future__ import annotations

import os

from worker.process.mates import LONGEST_ID, MOST_JOBS, MatesBoard, fits

LONG = "x" * LONGEST_ID


def test_mates_are_found_by_the_job_they_run_beside() -> None:
    board = MatesBoard(3)
    board.row(0).write("a", ["b", "c"])
    board.row(2).write(LONG, [LONG[:-1] + "y"])
    assert board.mates_of(["a"], 3) == ["b", "c"]
    assert board.mates_of(["a", LONG, "z" * 99], 3) == ["b", "c", LONG[:-1] + "y"]
    assert board.mates_of(["a", LONG], 2) == ["b", "c"], "places never used are not looked at"
    assert board.mates_of(["b", ""], 3) == []
    assert not fits(LONG + "x")


def test_the_next_batch_takes_the_place_of_the_last() -> None:
    board = MatesBoard(1)
    row = board.row(0)
    row.write("a", [f"m{n}" for n in range(MOST_JOBS - 1)])
    assert len(board.mates_of(["a"], 1)) == MOST_JOBS - 1
    row.write("b", ["c"])
    assert board.mates_of(["a"], 1) == []
    assert board.mates_of(["b"], 1) == ["c"]
    row.clear()
    assert board.mates_of(["b"], 1) == []


def test_what_a_dead_process_wrote_can_still_be_read() -> None:
    board = MatesBoard(2)
    child = os.fork()
    if child == 0:
        board.row(1).write("a", ["b"])
        os._exit(9)
    os.waitpid(child, 0)
    assert board.mates_of(["a"], 2) == ["b"]
