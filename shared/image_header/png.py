"""PNG: walks from chunk to chunk (https://www.w3.org/TR/png-3/#5Chunk-layout)."""

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

CONTENT_TYPE = "image/png"
SIGNATURES = ((0, b"\x89PNG\r\n\x1a\n"),)

_HEADER_CHUNK = struct.Struct(">I4sIIBB")
_CHUNK = struct.Struct(">I4s")
_CHECK_BYTES = 4
_WITH_ALPHA = (4, 6)
"""Colour types: grey with alpha, RGB with alpha."""


def read(image: bytes) -> ImageHeader:
    """The header of a PNG, whose chunks are walked through to the last. Raises `InvalidImage`."""
    if len(image) < 8 + _HEADER_CHUNK.size:
        raise incomplete()
    length, kind, width, height, bits, colour_type = _HEADER_CHUNK.unpack_from(image, 8)
    if kind != b"IHDR" or length != 13:
        raise broken("the first chunk is not IHDR")
    has_alpha, orientation, pixels = colour_type in _WITH_ALPHA, 1, False
    at = 8
    for _ in range(MAX_PARTS):
        if at + _CHUNK.size > len(image):
            raise incomplete()
        length, kind = _CHUNK.unpack_from(image, at)
        at += _CHUNK.size
        if at + length + _CHECK_BYTES > len(image):
            raise incomplete()
        if kind == b"IDAT":
            pixels = True
        elif kind == b"tRNS" and not pixels:
            has_alpha = True
        elif kind == b"eXIf":
            orientation = exif.orientation(image, at, at + length)
        elif kind == b"IEND":
            if not pixels:
                raise broken("there is no IDAT chunk")
            return ImageHeader(CONTENT_TYPE, width, height, orientation, has_alpha, bits)
        at += length + _CHECK_BYTES
    raise too_many_parts()
