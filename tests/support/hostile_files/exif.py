"""Makes hostile EXIF blocks, which most formats can carry."""

from __future__ import annotations

import struct

import numpy as np

from tests.support.hostile_files.base import HUGE, Named


def exif_blocks(size: int) -> Named:
    """TIFF blocks without any prefix. Entries are little-endian: tag, type, count, value."""

    def block(*entries: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
        packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        return head + packed + struct.pack("<I", following) + tail

    turned = (274, 3, 1, 6)
    yield "next-ifd-is-itself", block(turned, following=8)
    yield "sub-ifd-is-itself", block((34665, 4, 1, 8), turned)
    yield "all-sub-ifds-loop", block(*((tag, 4, 1, 8) for tag in (330, 34665, 34853, 40965)))
    yield "count-of-2-32", block((274, 3, HUGE, 8), (270, 2, HUGE, 8), (271, 12, HUGE, 8))
    yield "offset-of-2-32", block((270, 2, 100, HUGE), (34665, 4, 1, HUGE), following=HUGE)
    yield "ifd-at-2-32", struct.pack("<2sHI", b"II", 42, HUGE)
    entries = min(0xFFFF, max(1, (size - 14) // 12))
    many = struct.pack("<HHII", 270, 2, 4, 0) * entries
    yield "65535-entries", struct.pack("<2sHIH", b"II", 42, 8, entries) + many + bytes(4)
    yield "65535-declared", struct.pack("<2sHIH", b"II", 42, 8, 0xFFFF) + bytes(12)
    # Every entry has a value as long as the block: reading each costs entries x size.
    entries = min(0xFFFF, max(1, size // 24))
    values = struct.pack("<HHII", 37500, 7, size - 100, 50) * entries
    whole = struct.pack("<2sHIH", b"II", 42, 8, entries) + values
    yield "overlapping-values", whole.ljust(size, b"\0")
    yield "nested-ifds", _chain(size, 34665)
    yield "chained-ifds", _chain(size, None)


def _chain(size: int, pointer: int | None) -> bytes:
    """Directories of one entry, each leading to the next: by a sub-IFD, or as the next page."""
    count = max(1, (size - 8) // 18)
    at = 8 + 18 * np.arange(1, count + 1, dtype=np.uint32)
    at[-1] = 0
    rows = np.zeros(
        count,
        np.dtype("<u2, <u2, <u2, <u4, <u4, <u4"),
    )
    rows["f0"] = 1
    rows["f1"], rows["f2"], rows["f3"] = pointer or 274, 4 if pointer else 3, 1
    rows["f4"] = at if pointer else 1
    rows["f5"] = 0 if pointer else at
    return struct.pack("<2sHI", b"II", 42, 8) + rows.tobytes()
