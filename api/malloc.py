"""Makes glibc keep an upload's memory for the next one."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES, _TRIM_BYTES = 32 << 20, 64 << 20


def keep_memory() -> None:
    """Keep up to 64 MiB at the top of the heap. By default glibc may return an upload's memory to
    the kernel and ask for it again for the next upload, which takes 4 ms for 2.3 MB."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl, macOS
        return
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
