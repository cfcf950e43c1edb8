"""Bounds the memory that decoding one picture may take.

A header can lie: a file of 100 KB may declare 10 x 10 pixels and hold 16,000 x 16,000, and not
every decoder compares the two before it allocates. Beyond the bound the kernel refuses memory, the
decoder reports that it has none, and the process survives.
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
    """Within the context, let this process allocate at most `size_bytes` more than it has now.

    The bound covers all threads of the process, so use it in one that does one thing at a time.
    Without effect except on Linux: other kernels do not count what a process allocates.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = _limits_at_start()
    now = int(_STATM.read_bytes().split()[5]) * _PAGE_BYTES
    wanted = now + size_bytes
    allowed = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    try:  # the time limit's exception may come at any moment
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
