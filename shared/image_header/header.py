"""`ImageHeader`, which every format's reader returns, and the errors they share."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InvalidImage

MAX_PARTS = 20_000
"""Most segments, chunks, boxes or tags of one file; each costs a microsecond or two. A photograph
has tens of them, a 20 MB PNG in libpng's chunks of 8 KB has 2,500."""

_TRANSPOSED = (5, 6, 7, 8)


def weight_of(bits: int, *, has_alpha: bool) -> int:
    """`ImageHeader.weight` of what is decoded to four samples of so many bits."""
    return 2 if bits > 8 and has_alpha else 1


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file declares. `width` and `height`: pixels as stored. `orientation`: EXIF's, 1-8."""

    content_type: str
    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False
    """Whether pixels may be transparent."""
    bits: int = 8
    """Bits per sample."""
    premultiplied: bool = False
    """Whether the decoder returns colours that are already multiplied by alpha."""
    weight: int = 1
    """Decoder memory per pixel relative to most formats. Divides the limit of pixels."""
    pixels_at: int = 0
    """Byte offset of the coded picture, for formats with a `find_end`."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels as a viewer shows the image, orientation applied."""
        if self.orientation in _TRANSPOSED:
            return self.height, self.width
        return self.width, self.height


def broken(what: str) -> InvalidImage:
    """The error for a file whose header contradicts its format."""
    return InvalidImage(f"The image's header is broken: {what}.")


def incomplete() -> InvalidImage:
    """The error for a file that ends early."""
    return InvalidImage("The file is not complete: it ends before its image does.")


def too_many_parts() -> InvalidImage:
    """The error for a file that would take too long to walk through."""
    return InvalidImage(f"The file has more than {MAX_PARTS:,} parts; save it again.")
