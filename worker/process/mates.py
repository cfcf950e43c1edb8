"""Owns the board of micro-batches: memory in which each pool process names the jobs that it runs
beside the one Celery gave it, its mates, for the parent to renew and to give back.

Made before the fork, a row for each place in the pool: the id of Celery's job, then its mates' up
to an empty slot. The id in front is erased before a row changes and written after, but nothing
rests on that. Whatever the parent reads from a row that changes under it, it can do no harm:

- an id it misses is renewed 2 s later or, if its process has just died, freed by its lease;
- an id it reads too much is a job that has ended, or runs in another process of this worker, which
  has it renewed as well; giving it back names the attempt, which is always a mate's first, so an
  outcome or a later attempt is never touched;
- half of an id is no job's.

So a row is not cleared for a process that takes a dead one's place either: the parent may not have
come to the row yet, and only asks by the id of a job that Celery says is running.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable

MOST_JOBS = 64
"""Of one batch, the one from Celery included; the bound of `MICRO_BATCH_JOBS`."""
LONGEST_ID = 64
"""Bytes; a job with a longer id has no mates and is none (claim_more.lua). Ours have 36."""

MATES_ATTEMPT = 1
"""A job that was lost once runs alone."""

_ROW = MOST_JOBS * LONGEST_ID
_EMPTY = bytes(LONGEST_ID)


def _slot(task_id: str) -> bytes:
    return task_id.encode().ljust(LONGEST_ID, b"\0")


def fits(task_id: str) -> bool:
    return len(task_id.encode()) <= LONGEST_ID


class MatesRow:
    """What one pool process writes."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def write(self, task_id: str, mates: Iterable[str]) -> None:
        """Name the mates of the job that Celery gave this process."""
        self.clear()
        slots = b"".join(map(_slot, mates))
        self._cells[LONGEST_ID : LONGEST_ID + len(slots)] = slots
        end = LONGEST_ID + len(slots)
        self._cells[end : end + LONGEST_ID] = _EMPTY[: _ROW - end]
        self._cells[:LONGEST_ID] = _slot(task_id)

    def clear(self) -> None:
        self._cells[:LONGEST_ID] = _EMPTY


class MatesBoard:
    """Rows that nobody writes take no memory: the system gives pages at the first write."""

    def __init__(self, processes: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, processes * _ROW))

    def row(self, index: int) -> MatesRow:
        """The row of the pool process at a place in the pool, counted from 0."""
        return MatesRow(self._cells[index * _ROW : (index + 1) * _ROW])

    def mates_of(self, running: Collection[str], processes: int) -> list[str]:
        """In the parent: the mates of these jobs, from the rows of the first `processes` places."""
        wanted = {_slot(task_id) for task_id in running if fits(task_id)}
        found: list[str] = []
        for index in range(processes):
            row = bytes(self._cells[index * _ROW : (index + 1) * _ROW])
            if row[:LONGEST_ID] not in wanted:
                continue
            for at in range(LONGEST_ID, _ROW, LONGEST_ID):
                if not row[at]:
                    break
                slot = row[at : at + LONGEST_ID].rstrip(b"\0")
                found.append(slot.decode(errors="replace"))
        return found
