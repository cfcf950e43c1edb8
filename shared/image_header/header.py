"""What a file says of itself, and the errors of broken files."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InvalidImage

MAX_PARTS = 20_000
"""Segments, chunks, boxes or tags of one file. Each costs a microsecond or two. Photographs have
tens; a PNG of 20 MB in the pieces of 8 KB that libpng writes has 2,500."""

_TRANSPOSED = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`width` and `height` are in pixels as stored; `orientation` is EXIF's value, 1-8."""

    content_type: str
    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False
    """Whether pixels may be transparent."""
    bits: int = 8
    """Of a sample."""
    premultiplied: bool = False
    """Whether the decoder gives transparent colours as they look on black."""
    weight: int = 1
    """How many times the memory that pixels usually take in a decoder. The limit counts by it."""
    pixels_at: int = 0
    """Offset in bytes of the coded picture, where finding its end is work of its own."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as a viewer shows the image, EXIF orientation applied."""
        if self.orientation in _TRANSPOSED:
            return self.height, self.width
        return self.width, self.height


def broken(what: str) -> InvalidImage:
    """The error of a file whose header contradicts its format."""
    return InvalidImage(f"The image's header is broken: {what}.")


def incomplete() -> InvalidImage:
    """The error of a file that ends early."""
    return InvalidImage("The file is not complete; send it again.")


def too_many_parts() -> InvalidImage:
    """The error of a file that would take long to walk through."""
    return InvalidImage(f"The file has more than {MAX_PARTS:,} parts; save it again.")
