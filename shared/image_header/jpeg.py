"""JPEG: walks from marker to marker (ITU-T T.81, annex B) up to the end of the first picture.

What follows is ignored: further pictures of a Multi-Picture Format file or an HDR photograph, the
film of a motion photo, a vendor's trailer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from shared.errors import InvalidImage
from shared.image_header import exif
from shared.image_header.header import (
    MAX_PARTS,
    ImageHeader,
    broken,
    incomplete,
    too_many_parts,
)

CONTENT_TYPE = "image/jpeg"
SIGNATURES = ((0, b"\xff\xd8\xff"),)

_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
"""Sequential and progressive, with Huffman or arithmetic coding: what libjpeg-turbo decodes."""
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xCB, 0xCD, 0xCE, 0xCF)
"""Lossless and hierarchical."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In coded data, FF is followed by 00 or by the number of a restart marker."""
_MAX_FILL_BYTES = 1 << 20
_STEP_BYTES = 1 << 20
"""Searched in one step: 7 ms for data that was made to take long."""
_STEP_PARTS = 1000
_MAX_SCANS = 100
"""A progressive file has about 10. For each, a decoder passes over the whole picture."""


def read(image: bytes) -> ImageHeader:
    """Read the header of a JPEG file, up to its first scan. Raises `InvalidImage`."""
    at, fill, size, orientation = 2, 0, None, None
    for _ in range(MAX_PARTS):
        found = _MARKER.search(image, at, at + _MAX_FILL_BYTES)
        if found is None:
            raise incomplete() if at + _MAX_FILL_BYTES >= len(image) else _no_marker()
        fill += found.start() - at
        if fill > _MAX_FILL_BYTES:
            raise _no_marker()
        marker, at = image[found.end() - 1], found.end()
        length = _segment_length(image, at, marker)
        if marker in _FRAMES and size is None:
            size = _frame_size(image, at, length)
        elif marker in _OTHER_FRAMES:
            raise InvalidImage("This kind of JPEG (lossless or hierarchical) is not supported.")
        elif marker == _APP1 and orientation is None and image.startswith(b"Exif\0", at + 2):
            orientation = exif.orientation(image, at + 2, at + length)
        at += length
        if marker == _SOS:
            if size is None:
                raise broken("a scan comes before the frame that it belongs to")
            width, height = size
            return ImageHeader(CONTENT_TYPE, width, height, orientation or 1, pixels_at=at)
    raise too_many_parts()


def find_end(image: bytes, header: ImageHeader) -> Iterator[None]:
    """Find the end of the first picture in short steps. Raises `InvalidImage` if it is missing."""
    at, scans, parts = header.pixels_at, 1, 0
    step_end = at + _STEP_BYTES
    while at < len(image):
        if at + 1 >= step_end or parts % _STEP_PARTS == _STEP_PARTS - 1:
            step_end = at + _STEP_BYTES
            yield
        found = _MARKER_IN_SCAN.search(image, at, step_end)
        if found is None:
            at = step_end - 1  # a marker may begin with the last byte
            continue
        marker, at = image[found.end() - 1], found.end()
        if marker == _EOI:
            return
        if marker == _SOI:
            break  # another picture begins inside this one
        at += _segment_length(image, at, marker)
        parts += 1
        scans += marker == _SOS
        if scans > _MAX_SCANS:
            raise InvalidImage(f"The JPEG has more than {_MAX_SCANS} scans; save it again.")
        if parts > MAX_PARTS:
            raise too_many_parts()
    raise incomplete()


def _segment_length(image: bytes, at: int, marker: int) -> int:
    """Length of the segment after the marker that ends at `at`, its own two bytes included."""
    if marker < 0xC0 or marker in (_SOI, _EOI):
        raise broken(f"unexpected marker {marker:02X}")
    if 0xD0 <= marker <= 0xD7:
        return 0
    if at + 2 > len(image):
        raise incomplete()
    length: int = struct.unpack_from(">H", image, at)[0]
    if length < 2:
        raise broken("a segment is shorter than its own length")
    if at + length > len(image):
        raise incomplete()
    return length


def _frame_size(image: bytes, at: int, length: int) -> tuple[int, int]:
    if length < 8:
        raise broken("the frame has no size")
    bits, height, width, components = struct.unpack_from(">BHHB", image, at + 2)
    if bits != 8:
        raise InvalidImage(f"A JPEG of {bits} bits is not supported; send one of 8 bits.")
    if components not in (1, 3, 4):
        raise InvalidImage(f"A JPEG of {components} components is not supported.")
    return width, height


def _no_marker() -> InvalidImage:
    return broken("there is no marker where a segment has to begin")
