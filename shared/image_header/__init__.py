"""Reads the header of an image file: type, declared size, orientation, whether the end is there.

Nothing is decoded. Each module walks the structure of one format, within bounds, so that no file
can take long: the gateway does this between other requests. A 1 KB file that declares
50,000 x 50,000 pixels costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shared.errors import TooManyPixels, UnsupportedMediaType
from shared.image_header import bmp, gif, heif, jpeg, png, tiff, webp
from shared.image_header.header import ImageHeader, broken

__all__ = ["FORMATS", "ImageHeader", "check_file", "find_end", "read_header"]

FORMATS = "JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF or BMP"
"""What is accepted, in words. Of animated files the first frame counts."""

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
    """Read and check the header of an encoded image, in 50 ms at most whatever is in the file.

    Raises `UnsupportedMediaType` if it is no image of an accepted format, `InvalidImage` if its
    header is broken or the file ends early (for JPEG and GIF see `find_end`), `TooManyPixels` if it
    declares more than `max_pixels`, or half of that for an AVIF with transparency.
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
    """Find the end of the coded picture: a decoder would fill with grey what is missing.

    This walks through all of the picture, in steps of 10 ms at most: one each time the iterator is
    asked for more. Raises `InvalidImage` if the end is not there.
    """
    find = _FIND_END.get(header.content_type)
    return find(image, header) if find else iter(())


def check_file(image: bytes, *, max_pixels: int) -> ImageHeader:
    """`read_header` and `find_end` in one go, where nobody else waits."""
    header = read_header(image, max_pixels=max_pixels)
    for _ in find_end(image, header):
        pass
    return header
