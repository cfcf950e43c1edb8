"""Reads the header of an image file: type, declared size, orientation, and whether it is complete.

Nothing is decoded, so a 1 KB file that declares 50,000 x 50,000 pixels costs nothing here. Each
module walks the structure of one format and gives up on a file with too many parts: the gateway
does this between other requests, so no file may take long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared.errors import TooManyPixels, UnsupportedMediaType
from shared.image_header import bmp, gif, heif, jpeg, png, tiff, webp
from shared.image_header.header import ImageHeader, broken

__all__ = ["FORMATS", "ImageHeader", "check_file", "find_end", "read_header"]

FORMATS = "JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF or BMP"
"""What is accepted, for error messages. Of an animation only the first frame is used."""

_READERS: tuple[tuple[tuple[tuple[int, bytes], ...], Callable[[bytes], ImageHeader]], ...] = (
    (jpeg.SIGNATURES, jpeg.read),
    (png.SIGNATURES, png.read),
    (webp.SIGNATURES, webp.read),
    (heif.SIGNATURES, heif.read),
    (tiff.SIGNATURES, tiff.read),
    (gif.SIGNATURES, gif.read),
    (bmp.SIGNATURES, bmp.read),
)
_FIND_END = {jpeg.CONTENT_TYPE: jpeg.find_end, gif.CONTENT_TYPE: gif.find_end}


def read_header(image: bytes, *, max_pixels: int) -> ImageHeader:
    """Read and check the header of an image file. Takes at most 50 ms, whatever the file holds.

    Raises `UnsupportedMediaType` if it is not an image of an accepted format, `InvalidImage` if its
    header is broken or the file ends early (for JPEG and GIF see `find_end`), `TooManyPixels` if it
    declares more than `max_pixels`, or than its share of that (`ImageHeader.weight`).
    """
    for signatures, read in _READERS:
        if any(image.startswith(signature, at) for at, signature in signatures):
            header = read(image)
            break
    else:
        raise UnsupportedMediaType(f"Not an image of a supported type; send {FORMATS}.")
    width, height, most = header.width, header.height, max_pixels // header.weight
    if width < 1 or height < 1:
        raise broken("the picture has no pixels")
    if width * height > most:
        kind = " of its kind" if header.weight > 1 else ""
        raise TooManyPixels(
            f"The image declares {width} x {height} pixels; of an image{kind}, at most {most:,} "
            "are allowed."
        )
    return header


def find_end(image: bytes, header: ImageHeader) -> Iterator[None]:
    """Check that the coded picture is complete. A decoder would fill in what is missing with grey.

    Walks through the whole picture. Each step of the iterator takes 10 ms at most. Raises
    `InvalidImage` if the end is missing.
    """
    find = _FIND_END.get(header.content_type)
    return find(image, header) if find else iter(())


def check_file(image: bytes, *, max_pixels: int) -> ImageHeader:
    """Run `read_header` and all steps of `find_end`, for callers that may block."""
    header = read_header(image, max_pixels=max_pixels)
    for _ in find_end(image, header):
        pass
    return header
