"""Bounds the memory that decoding one picture may take.

A header can lie: a file of 100 KB may declare 10 x 10 pixels and hold 16,000 x 16,000, and not
every decoder compares the two before it allocates. The kernel refuses what goes beyond the bound,
the decoder reports that it has no memory, and the process lives on.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_PAGE_BYTES = resource.getpagesize()
_STATM = Path("/proc/self/statm")


@cache
def _limits_at_start() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_DATA)


@contextmanager
def memory_bound(size_bytes: int) -> Iterator[None]:
    """Let this process have `size_bytes` more than now, for as long as the context lasts.

    It does nothing but on Linux, since other kernels do not count what a process allocates. It
    counts for all threads of the process, so it is meant for one that does one thing at a time.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = _limits_at_start()
    now = int(_STATM.read_bytes().split()[5]) * _PAGE_BYTES
    wanted = now + size_bytes
    allowed = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    try:  # a time limit may strike at any moment
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
