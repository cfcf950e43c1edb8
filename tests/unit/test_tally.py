from __future__ import annotations

import os

from worker.process.counters import BUCKETS_SECONDS, HISTOGRAMS, OUTCOMES, Tally

TIMINGS = {"queue": 0.0, "decode": 2.5, "infer": 30.0, "draw": 4_000_000.0, "total": 100.0}


def test_rows_are_summed_over_processes() -> None:
    tally = Tally(4)
    for place in (0, 2):
        tally.process(place).completed(TIMINGS, size_bytes=10, pixels=20, detections=3)
    tally.parent().ended("worker_lost")
    now = tally.read(4)
    tally.process(2).batched(4)
    now = tally.read(4)
    counted = {"bytes": 20, "pixels": 40, "detections": 6}
    assert now.totals == {**counted, "batches": 1, "batch_jobs": 4}
    assert now.outcomes == {**dict.fromkeys(OUTCOMES, 0.0), "completed": 2, "worker_lost": 1}
    for name in HISTOGRAMS:
        assert now.histograms[name].counts[-1] == 2
        assert now.histograms[name].sum_seconds == 2 * TIMINGS[name] / 1000
    assert tally.read(1).outcomes["completed"] == 1, "places that were never used are not looked at"


def test_a_bucket_holds_what_is_up_to_its_bound() -> None:
    tally = Tally(1)
    tally.process(0).completed(TIMINGS, size_bytes=0, pixels=0, detections=0)
    now = tally.read(1).histograms
    at = BUCKETS_SECONDS.index
    assert now["queue"].counts[0] == 1
    assert now["decode"].counts[at(0.0025)] == 1, "a value on the bound is below it"
    assert now["decode"].counts[at(0.001)] == 0
    assert now["infer"].counts[at(0.025)] == 0
    assert now["infer"].counts[at(0.05)] == 1
    assert now["draw"].counts[-2:] == (0, 1), "above the last bound"


def test_a_child_writes_what_its_parent_reads() -> None:
    tally = Tally(2)
    for _ in range(2):  # the second one takes the place of the first
        child = os.fork()
        if child == 0:
            tally.process(1).ended("failed")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert tally.read(2).outcomes["failed"] == 2
