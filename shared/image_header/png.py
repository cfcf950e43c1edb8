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
    weight_of,
)

CONTENT_TYPE = "image/png"
SIGNATURES = ((0, b"\x89PNG\r\n\x1a\n"),)

_HEADER_CHUNK = struct.Struct(">I4sIIBB")
_CHUNK = struct.Struct(">I4s")
_CHECK_BYTES = 4
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel, by colour type: grey, RGB, palette, grey with alpha, RGB with alpha."""
_WITH_ALPHA = (4, 6)
_COMPRESSED_TEXTS = (b"zTXt", b"iTXt", b"iCCP")
_MAX_TEXTS = 50
"""libpng inflates each to up to 8 MB."""
_MAX_OVERHEAD_BYTES = 1 << 16
"""After the last row libpng inflates whatever data is left."""


def read(image: bytes) -> ImageHeader:
    """Read the header of a PNG file and walk to its last chunk. Raises `InvalidImage`."""
    if len(image) < 8 + _HEADER_CHUNK.size:
        raise incomplete()
    length, kind, width, height, bits, colour_type = _HEADER_CHUNK.unpack_from(image, 8)
    if kind != b"IHDR" or length != 13:
        raise broken("the first chunk is not IHDR")
    has_alpha, orientation = colour_type in _WITH_ALPHA, None
    coded_bytes = texts = 0
    at = 8
    for _ in range(MAX_PARTS):
        if at + _CHUNK.size > len(image):
            raise incomplete()
        length, kind = _CHUNK.unpack_from(image, at)
        at += _CHUNK.size
        if at + length + _CHECK_BYTES > len(image):
            raise incomplete()
        if kind == b"IDAT":
            coded_bytes += length
        elif kind == b"tRNS" and not coded_bytes:
            has_alpha = True
        elif kind in _COMPRESSED_TEXTS:
            texts += 1
        elif kind == b"eXIf" and orientation is None:
            orientation = exif.orientation(image, at, at + length)
        elif kind == b"IEND":
            if not coded_bytes:
                raise broken("there are no pixels")
            row_bytes = 2 + width * bits * _SAMPLES.get(colour_type, 4) // 8
            # Noise in Huffman codes that do not suit it grows by an eighth.
            most = _MAX_OVERHEAD_BYTES + height * row_bytes * 5 // 4
            if coded_bytes > most or texts > _MAX_TEXTS:
                raise broken("it has more data than a picture of its size needs")
            weight = weight_of(bits, has_alpha=has_alpha)
            return ImageHeader(
                *(CONTENT_TYPE, width, height, orientation or 1, has_alpha, bits), weight=weight
            )
        at += length + _CHECK_BYTES
    raise too_many_parts()
