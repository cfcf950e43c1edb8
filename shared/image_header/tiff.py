"""TIFF: reads the first directory, which describes the first picture (TIFF 6.0)."""

from __future__ import annotations

import struct
from operator import add

from shared.errors import InvalidImage, UnsupportedMediaType
from shared.image_header.header import ImageHeader, broken, incomplete, weight_of

CONTENT_TYPE = "image/tiff"
SIGNATURES = ((0, b"II*\0"), (0, b"MM\0*"))

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_ORIENTATION, _SAMPLES = 274, 277
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DNG_VERSION = 262, 338, 339, 50706
_TYPES = {1: "B", 3: "H", 4: "I"}
_LETTER_BYTES = {"B": 1, "H": 2, "I": 4}
_MAX_ENTRIES = 1000
_MAX_VALUES = 100_000
"""Values of one tag: more than the strips of a picture with 65,535 rows."""
_FLOAT = 3
_RGB, _CMYK = 2, 5
_ASSOCIATED = 1
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""None, CCITT, LZW, JPEG, Deflate, PackBits: what OpenCV's libtiff decodes."""


def read(image: bytes) -> ImageHeader:
    """Read the header of a TIFF file.

    The size is the upright one and the orientation 1: OpenCV's decoder turns the picture itself.
    Raises `InvalidImage`, or `UnsupportedMediaType` for raw photographs.
    """
    order = "<" if image[:2] == b"II" else ">"
    try:
        tags = _directory(image, order)
        reduced = _values(image, tags, _SUBFILE_TYPE, (0,))[0] & 1
        if _DNG_VERSION in tags or reduced or image[8:10] == b"CR":
            # The first picture of a raw photograph is a thumbnail.
            raise UnsupportedMediaType("A raw photograph; develop it and send a JPEG.")
        width, height = (tags[tag].values(image)[0] for tag in (_WIDTH, _HEIGHT))
        bits = _values(image, tags, _BITS, (1,))
        samples = _values(image, tags, _SAMPLES, (1,))[0]
        if max(bits) > 16 or _FLOAT in _values(image, tags, _SAMPLE_FORMAT, (1,)) or samples > 4:
            raise InvalidImage(
                "Only TIFFs of at most 16 bits and 4 samples a pixel, and no floats, are supported."
            )
        photometric = _values(image, tags, _PHOTOMETRIC, (0,))[0]
        compression = _values(image, tags, _COMPRESSION, (1,))[0]
        if compression not in _COMPRESSIONS or (photometric == _CMYK and max(bits) > 8):
            raise InvalidImage(f"This kind of TIFF (compression {compression}) is not supported.")
        _check_complete(image, tags)
        extra = _values(image, tags, _EXTRA_SAMPLES, (0,))
        has_alpha = _EXTRA_SAMPLES in tags or (photometric == _RGB and samples == 4)
        orientation = _values(image, tags, _ORIENTATION, (1,))[0]
        if orientation in (5, 6, 7, 8):
            width, height = height, width
        if orientation != 1 and _TILE_OFFSETS in tags:  # OpenCV turns each tile, not the picture
            raise InvalidImage("A TIFF in tiles that is not upright is not supported; turn it.")
    except struct.error as error:
        raise incomplete() from error
    except (KeyError, IndexError) as error:
        raise broken("it does not say the picture's size") from error
    # With 8 bits, libtiff multiplies colours by alpha itself.
    premultiplied = max(bits) <= 8 or extra == (_ASSOCIATED,)
    return ImageHeader(
        CONTENT_TYPE,
        width,
        height,
        has_alpha=has_alpha,
        bits=max(bits),
        premultiplied=premultiplied,
        weight=weight_of(max(bits), has_alpha=has_alpha),
    )


class _Tag:
    """A tag, whose values are read on demand."""

    def __init__(self, order: str, kind: int, count: int, at: int) -> None:
        self._order, self._letter, self._count, self._at = order, _TYPES.get(kind, ""), count, at

    def values(self, image: bytes) -> tuple[int, ...]:
        if not self._letter or not self._count:
            raise broken("a tag has no number where there should be one")
        if self._count > _MAX_VALUES:
            raise broken(f"a tag has more than {_MAX_VALUES:,} values")
        at = self._at
        if self._count * _LETTER_BYTES[self._letter] > 4:  # the entry holds their offset
            (at,) = struct.unpack_from(self._order + "I", image, at)
        return struct.unpack_from(f"{self._order}{self._count}{self._letter}", image, at)


def _directory(image: bytes, order: str) -> dict[int, _Tag]:
    (offset,) = struct.unpack_from(order + "I", image, 4)
    (entries,) = struct.unpack_from(order + "H", image, offset)
    if entries > _MAX_ENTRIES:
        raise broken(f"it has more than {_MAX_ENTRIES:,} tags")
    tags: dict[int, _Tag] = {}
    for at in range(offset + 2, offset + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", image, at)
        tags.setdefault(tag, _Tag(order, kind, count, at + 8))
    return tags


def _values(
    image: bytes, tags: dict[int, _Tag], tag: int, default: tuple[int, ...]
) -> tuple[int, ...]:
    return tags[tag].values(image) if tag in tags else default


def _check_complete(image: bytes, tags: dict[int, _Tag]) -> None:
    for starts, sizes in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
        if starts in tags and sizes in tags:
            ends = map(add, tags[starts].values(image), tags[sizes].values(image))
            if max(ends, default=0) > len(image):
                raise incomplete()
