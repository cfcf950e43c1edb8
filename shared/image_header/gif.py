"""GIF: walks from block to block (GIF89a specification)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from shared.image_header.header import (
    MAX_PARTS,
    ImageHeader,
    broken,
    incomplete,
    too_many_parts,
)

CONTENT_TYPE = "image/gif"
SIGNATURES = ((0, b"GIF87a"), (0, b"GIF89a"))

_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_STEP_BLOCKS = 10_000


def read(image: bytes) -> ImageHeader:
    """Read the header of a GIF file, up to the pixels of its first frame. Raises `InvalidImage`."""
    try:
        width, height, flags = struct.unpack_from("<HHB", image, 6)
        at, has_alpha, inside = 13 + _table_bytes(flags), False, False
        for _ in range(MAX_PARTS):
            kind = image[at]
            if inside:  # an extension's data comes in blocks
                inside = kind != 0
                at += 1 + kind
            elif kind == _EXTENSION:
                if image[at + 1] == _GRAPHIC_CONTROL:
                    has_alpha = bool(image[at + 3] & 1)
                at, inside = at + 2, True
            elif kind == _FRAME:
                left, top, wide, high, flags = struct.unpack_from("<HHHHB", image, at + 1)
                if left + wide > width or top + high > height:
                    raise broken("the first frame is larger than the picture")
                at += 10 + _table_bytes(flags) + 1  # one byte: the size of the LZW codes
                return ImageHeader(CONTENT_TYPE, width, height, 1, has_alpha, pixels_at=at)
            else:
                raise broken("there is no frame")
    except (IndexError, struct.error) as error:
        raise incomplete() from error
    raise too_many_parts()


def find_end(image: bytes, header: ImageHeader) -> Iterator[None]:
    """Find the end of the file in short steps.

    Only the first frame is used, but the decoder needs all of them to be complete. Raises
    `InvalidImage` if the end is missing.
    """
    at, inside, parts = header.pixels_at, True, 0
    try:
        while True:
            for _ in range(_STEP_BLOCKS):
                kind = image[at]
                if inside:
                    inside = kind != 0
                    at += 1 + kind
                    continue
                if kind == _TRAILER:
                    return
                if kind == _EXTENSION:
                    at, inside = at + 2, True
                elif kind == _FRAME:
                    at, inside = at + 11 + _table_bytes(image[at + 9]), True
                else:
                    raise broken("there is something else between its frames")
                parts += 1
                if parts > MAX_PARTS:
                    raise too_many_parts()
            yield
    except IndexError:
        raise incomplete() from None


def _table_bytes(flags: int) -> int:
    """Size of the colour table that `flags` announces."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
