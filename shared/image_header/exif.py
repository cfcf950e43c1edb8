"""Reads the orientation from an EXIF block: a tag in the first directory of its TIFF structure."""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_MAX_ENTRIES = 1000
_SHORT, _LONG = 3, 4


def orientation(image: bytes, begin: int, end: int) -> int:
    """Return the orientation, 1-8, from the EXIF block `image[begin:end]`; 1 if it has none.

    Never raises: a picture with a broken EXIF block is still usable.
    """
    if image[begin : begin + 6] == b"Exif\0\0":  # always in JPEG, sometimes in WebP
        begin += 6
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(image[begin : begin + 4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", image, begin + 4)
        (entries,) = struct.unpack_from(order + "H", image, begin + offset)
        first = begin + offset + 2
        for at in range(first, first + 12 * min(entries, _MAX_ENTRIES), 12):
            if at + 12 > end:
                break
            tag, kind, count = struct.unpack_from(order + "HHI", image, at)
            if tag == _ORIENTATION and count == 1 and kind in (_SHORT, _LONG):
                letter = "H" if kind == _SHORT else "I"
                (value,) = struct.unpack_from(order + letter, image, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
