"""WebP: walks from chunk to chunk (RFC 9649)."""

from __future__ import annotations

import struct

from shared.image_header import exif
from shared.image_header.header import (
    MAX_PARTS,
    ImageHeader,
    broken,
    incomplete,
    too_many_parts,
)

CONTENT_TYPE = "image/webp"
SIGNATURES = ((8, b"WEBP"),)

_ALPHA_FLAG, _EXIF_FLAG = 0x10, 0x08


def read(image: bytes) -> ImageHeader:
    """Read the header of a WebP file. Raises `InvalidImage`."""
    if len(image) < 30:
        raise incomplete()
    (size,) = struct.unpack_from("<I", image, 4)
    end = 8 + size
    if image[:4] != b"RIFF":
        raise broken("it is not in a RIFF container")
    if end > len(image):
        raise incomplete()
    kind, at = image[12:16], 20
    if kind == b"VP8X":
        flags = image[at]
        width = 1 + int.from_bytes(image[at + 4 : at + 7], "little")
        height = 1 + int.from_bytes(image[at + 7 : at + 10], "little")
        orientation = _orientation(image, end) if flags & _EXIF_FLAG else 1
        return ImageHeader(CONTENT_TYPE, width, height, orientation, bool(flags & _ALPHA_FLAG))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", image, at + 1)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        return ImageHeader(CONTENT_TYPE, width, height, has_alpha=bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", image, at + 6)
        return ImageHeader(CONTENT_TYPE, width & 0x3FFF, height & 0x3FFF)
    raise broken("its first chunk is of an unknown type")


def _orientation(image: bytes, end: int) -> int:
    """The orientation from the EXIF chunk, which comes last."""
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return 1
        kind, length = struct.unpack_from("<4sI", image, at)
        at += 8
        if kind == b"EXIF":
            return exif.orientation(image, at, min(at + length, end))
        at += length + length % 2
    raise too_many_parts()
