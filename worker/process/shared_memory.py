"""Memory that a worker's pool processes write and its parent reads: one row a process.

The parent makes it before the fork. A row belongs to a place in the pool, so it has one writer and
needs no lock, and a process that takes a dead one's place continues its counters: they never go
backwards while the worker lives. Row 0 is the parent's own.

A row may change while the parent reads it. That does no harm:

- Counters are 64-bit floats, exact up to 2^53 and written in one piece. A histogram's count is
  taken from its buckets, so that the two always agree.
- A job id that the parent misses is renewed at the next heartbeat, or its lease expires.
- A job id that is out of date names a job that has ended or runs elsewhere. Ending its attempt 1
  changes neither an outcome nor a later attempt.
- An id that is half written matches no job.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from shared.job.keys import MAX_BATCHED_ID_BYTES

MAX_PROCESSES = 1024
MAX_BATCH_JOBS = 64
"""The bound of `MICRO_BATCH_JOBS`."""
BATCH_ATTEMPT = 1
"""Only first attempts share a forward pass (worker/batch.py)."""
ERROR_BYTES = 4096
MAX_DESCRIPTION_BYTES = 1024 * 1024
"""Of one model: its task and its class names, as JSON."""

STAGES = ("queue", "decode", "infer", "draw")
"""The parts of a job's time, named as in `timings_ms`."""
HISTOGRAMS = (*STAGES, "total")
OUTCOMES = ("completed", "delivered", "failed", "timeout", "internal", "worker_lost", "lease_lost")
"""How attempts end. `delivered`: a part of a job, other parts of which are missing; `failed`: with
an error that was committed; `lease_lost`: committed nothing."""
TOTALS = ("bytes", "pixels", "detections", "batches", "batch_jobs")

BUCKETS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    # Beyond a few seconds, only waiting in the queue takes so long.
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)

_Histogram = ctypes.c_double * (len(BUCKETS_SECONDS) + 1)
_TaskId = ctypes.c_char * MAX_BATCHED_ID_BYTES


class _Row(ctypes.Structure):
    _fields_ = (
        ("loaded_pid", ctypes.c_int32),
        ("batch", _TaskId * MAX_BATCH_JOBS),
        ("buckets", _Histogram * len(HISTOGRAMS)),
        ("sum_seconds", ctypes.c_double * len(HISTOGRAMS)),
        ("outcomes", ctypes.c_double * len(OUTCOMES)),
        ("totals", ctypes.c_double * len(TOTALS)),
    )


class _Memory(ctypes.Structure):
    _fields_ = (
        ("load_error", ctypes.c_char * ERROR_BYTES),
        ("rows", _Row * (MAX_PROCESSES + 1)),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("drained", ctypes.c_bool),
        ("description", ctypes.c_char * MAX_DESCRIPTION_BYTES),
    )


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations up to each of `BUCKETS_SECONDS`, cumulative; the last count is all of them."""

    counts: tuple[float, ...]
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class Counters:
    """All rows of a worker summed up."""

    histograms: dict[str, Histogram]
    outcomes: dict[str, float]
    totals: dict[str, float]


class ProcessRow:
    """What one process writes."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    @property
    def loaded_pid(self) -> int:
        """The last process in this place that has loaded its models; 0 if none has."""
        return int(self._row.loaded_pid)

    def announce_loaded(self, pid: int) -> None:
        """The process has its models and can take jobs."""
        self._row.loaded_pid = pid

    # -- counters -------------------------------------------------------------------------------

    def count_completed(
        self, timings_ms: Mapping[str, float], *, size_bytes: int, pixels: int, detections: int
    ) -> None:
        """Count an attempt whose result was committed."""
        row = self._row
        for number, name in enumerate(HISTOGRAMS):
            seconds = timings_ms[name] / 1000
            row.buckets[number][bisect_left(BUCKETS_SECONDS, seconds)] += 1
            row.sum_seconds[number] += seconds
        for number, amount in enumerate((size_bytes, pixels, detections)):
            row.totals[number] += amount
        self.count_end("completed")

    def count_batch(self, jobs: int) -> None:
        """Count a micro-batch of so many jobs."""
        for name, amount in (("batches", 1), ("batch_jobs", jobs)):
            self._row.totals[TOTALS.index(name)] += amount

    def count_end(self, outcome: str) -> None:
        """Count the end of an attempt; `outcome` is one of `OUTCOMES`."""
        self._row.outcomes[OUTCOMES.index(outcome)] += 1

    # -- the batch that runs ----------------------------------------------------------------------

    def name_batch(self, task_id: str, others: Iterable[str]) -> None:
        """Name the jobs that share the forward pass of `task_id`, the job that Celery knows of."""
        self.clear_batch()
        batch = self._row.batch
        for number, other in enumerate(others, 1):
            batch[number].value = other.encode()
        if number + 1 < MAX_BATCH_JOBS:
            batch[number + 1].value = b""
        batch[0].value = task_id.encode()

    def clear_batch(self) -> None:
        self._row.batch[0].value = b""


class SharedMemory:
    """Made before the fork. Pages that nobody writes take no memory."""

    def __init__(self, models: int = 1) -> None:
        self._memory = _Memory.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Memory)))
        models_type = _Model * models
        self._models = models_type.from_buffer(mmap.mmap(-1, ctypes.sizeof(models_type)))

    @property
    def parent_row(self) -> ProcessRow:
        return ProcessRow(self._memory.rows[0])

    def row(self, index: int) -> ProcessRow:
        """The row of the pool process at a place in the pool, counted from 0."""
        return ProcessRow(self._memory.rows[index + 1])

    @property
    def load_error(self) -> str:
        """Why a process could not load its model; empty if all could."""
        return str(self._memory.load_error.decode(errors="replace"))

    @load_error.setter
    def load_error(self, message: str) -> None:
        self._memory.load_error = message.encode()[: ERROR_BYTES - 1]

    def describe(self, model: int, description: str) -> None:
        """Say what a model is. `model`: its place among the worker's, counted from 0. Every process
        that loads it says the same. Raises `ValueError` if it is too long."""
        text = description.encode()
        if len(text) >= MAX_DESCRIPTION_BYTES:
            raise ValueError(f"its class names take {len(text)} bytes; {MAX_DESCRIPTION_BYTES} fit")
        self._models[model].description = text

    def description(self, model: int) -> str:
        """Empty until a process has loaded the model."""
        return str(self._models[model].description.decode())

    def drain(self, model: int) -> None:
        """From now on no process takes a job of this model."""
        self._models[model].drained = True

    def drained(self, model: int) -> bool:
        return bool(self._models[model].drained)

    def loaded_pids(self) -> set[int]:
        """Pids that have announced a loaded model; dead ones may be among them."""
        return {row.loaded_pid for row in self._rows_in_use()[1:]}

    def batched_with(self, running: Collection[str]) -> list[str]:
        """The jobs that share a forward pass with these, which Celery knows of."""
        wanted = {task_id.encode() for task_id in running}
        found: list[str] = []
        for row in self._rows_in_use()[1:] if wanted else ():
            first, *others = (task_id.value for task_id in row.batch)
            if first in wanted:
                end = others.index(b"") if b"" in others else len(others)
                found += [other.decode(errors="replace") for other in others[:end]]
        return found

    def counters(self) -> Counters:
        """What all processes have counted since the worker started."""
        rows = self._rows_in_use()
        return Counters(
            {
                name: Histogram(
                    tuple(accumulate(map(sum, zip(*(r.buckets[n] for r in rows), strict=True)))),
                    sum(row.sum_seconds[n] for row in rows),
                )
                for n, name in enumerate(HISTOGRAMS)
            },
            {name: sum(row.outcomes[n] for row in rows) for n, name in enumerate(OUTCOMES)},
            {name: sum(row.totals[n] for row in rows) for n, name in enumerate(TOTALS)},
        )

    def _rows_in_use(self) -> list[_Row]:
        """The parent's row, and those of the places whose process has ever loaded its model."""
        parent, *places = self._memory.rows
        return [parent, *(row for row in places if row.loaded_pid)]
