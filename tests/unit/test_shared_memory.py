"""The memory that pool processes write and their parent reads."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from shared.job.keys import MAX_BATCHED_ID_BYTES
from worker.process.shared_memory import (
    BUCKETS_SECONDS,
    HISTOGRAMS,
    MAX_BATCH_JOBS,
    OUTCOMES,
    ProcessRow,
    SharedMemory,
)

TIMINGS = {"queue": 0.0, "decode": 2.5, "infer": 30.0, "draw": 4_000_000.0, "total": 100.0}
LONG = "x" * MAX_BATCHED_ID_BYTES


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory()


def loaded(memory: SharedMemory, place: int) -> ProcessRow:
    row = memory.row(place)
    row.announce_loaded(1000 + place)
    return row


def in_a_child(action: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_counters_are_summed_over_processes(memory: SharedMemory) -> None:
    for place in (0, 2):
        loaded(memory, place).count_completed(TIMINGS, size_bytes=10, pixels=20, detections=3)
    memory.parent_row.count_end("worker_lost")
    memory.row(2).count_batch(4)
    now = memory.counters()
    counted = {"bytes": 20, "pixels": 40, "detections": 6}
    assert now.totals == {**counted, "batches": 1, "batch_jobs": 4}
    assert now.outcomes == {**dict.fromkeys(OUTCOMES, 0.0), "completed": 2, "worker_lost": 1}
    for name in HISTOGRAMS:
        assert now.histograms[name].counts[-1] == 2
        assert now.histograms[name].sum_seconds == 2 * TIMINGS[name] / 1000


def test_a_bucket_holds_what_is_up_to_its_bound(memory: SharedMemory) -> None:
    loaded(memory, 0).count_completed(TIMINGS, size_bytes=0, pixels=0, detections=0)
    now = memory.counters().histograms
    at = BUCKETS_SECONDS.index
    assert now["queue"].counts[0] == 1
    assert now["decode"].counts[at(0.0025)] == 1, "a value on the bound is below it"
    assert now["decode"].counts[at(0.001)] == 0
    assert now["infer"].counts[at(0.025)] == 0
    assert now["infer"].counts[at(0.05)] == 1
    assert now["draw"].counts[-2:] == (0, 1), "above the last bound"


def test_the_parent_reads_what_its_children_write(memory: SharedMemory) -> None:
    for _ in range(2):  # the second one takes the place of the first
        in_a_child(lambda: loaded(memory, 1).count_end("failed"))
    assert memory.counters().outcomes["failed"] == 2
    assert memory.loaded_pids() == {1001}
    assert memory.load_error == ""
    in_a_child(lambda: setattr(memory, "load_error", "no such file: ä" + "x" * 10_000))
    assert memory.load_error.startswith("no such file: ä")
    in_a_child(lambda: memory.row(1).name_batch("a", ["b"]))
    assert memory.batched_with(["a"]) == ["b"], "also when the process is dead"


def test_batches_are_found_by_the_job_that_celery_knows_of(memory: SharedMemory) -> None:
    loaded(memory, 0).name_batch("a", ["b", "c"])
    loaded(memory, 2).name_batch(LONG, [LONG[:-1] + "y"])
    assert memory.batched_with(["a"]) == ["b", "c"]
    assert memory.batched_with(["a", LONG, "z" * 99]) == ["b", "c", LONG[:-1] + "y"]
    assert memory.batched_with(["b"]) == []
    assert memory.batched_with([]) == []


def test_the_next_batch_takes_the_place_of_the_last(memory: SharedMemory) -> None:
    row = loaded(memory, 0)
    row.name_batch("a", [f"m{n}" for n in range(MAX_BATCH_JOBS - 1)])
    assert len(memory.batched_with(["a"])) == MAX_BATCH_JOBS - 1
    row.name_batch("b", ["c"])
    assert memory.batched_with(["a"]) == []
    assert memory.batched_with(["b"]) == ["c"]
    row.clear_batch()
    assert memory.batched_with(["b"]) == []
