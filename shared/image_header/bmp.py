"""BMP: reads the header before the pixels."""

from __future__ import annotations

import struct

from shared.image_header.header import ImageHeader, broken, incomplete

CONTENT_TYPE = "image/bmp"
SIGNATURES = ((0, b"BM"),)

_OLD_HEADER_BYTES = 12
_ALPHA_MASK_AT = 14 + 52
_UNCOMPRESSED = (0, 3, 6)
"""Uncompressed pixels: in fixed channels, or with masks that tell where each channel is."""


def read(image: bytes) -> ImageHeader:
    """Read the header of a BMP file. Raises `InvalidImage`."""
    try:
        pixels_at, header_bytes = struct.unpack_from("<II", image, 10)
        if header_bytes == _OLD_HEADER_BYTES:
            width, height, _, bits = struct.unpack_from("<HHHH", image, 18)
            compression = coded_bytes = 0
        elif header_bytes >= 40:
            width, height, _, bits, compression, coded_bytes = struct.unpack_from(
                "<iiHHII", image, 18
            )
        else:
            raise broken("its size is unknown")
        has_alpha = False
        if bits == 32 and header_bytes >= 56:
            (mask,) = struct.unpack_from("<I", image, _ALPHA_MASK_AT)
            has_alpha = mask != 0
    except struct.error as error:
        raise incomplete() from error
    height = abs(height)  # negative if the top row comes first
    if compression in _UNCOMPRESSED:
        coded_bytes = (width * bits + 31) // 32 * 4 * height
    if pixels_at + coded_bytes > len(image) + 3:  # the last row may lack its padding
        raise incomplete()
    return ImageHeader(CONTENT_TYPE, width, height, has_alpha=has_alpha)
