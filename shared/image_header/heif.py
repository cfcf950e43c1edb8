"""HEIC and AVIF: walks through the boxes that describe the primary picture (ISO/IEC 23008-12).

ftyp           brands
meta
  pitm         number of the primary item
  iloc         where in the file each item is
  iprp
    ipco       properties: hvcC or av1C (codec), ispe (size), clap, irot, imir, auxC, ...
    ipma       which properties each item has, by their numbers in ipco, from 1
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from shared.errors import UnsupportedMediaType
from shared.image_header.header import (
    MAX_PARTS,
    ImageHeader,
    broken,
    incomplete,
    too_many_parts,
    weight_of,
)

AVIF, HEIC = "image/avif", "image/heic"
SIGNATURES = ((4, b"ftyp"),)

_BRANDS = frozenset(
    {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
    | {b"mif1", b"mif2", b"msf1"}
)
_MAX_BRANDS = 64
_MAX_ITEMS_BYTES = 100_000
"""Size of the lists of items, enough for about 2,000; a telephone's 48 megapixels in tiles are 400.
Decoders compare every item with every other."""
_MEDIA_BOXES = (b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"idat")
_ALPHA = re.compile(rb"alpha|hevc:2015:auxid:1")
_MAX_PROPERTIES = 1000
"""Items share properties: a telephone's file has about 10."""
_CODECS = {b"av1C": AVIF, b"hvcC": HEIC}
_ORIENTATIONS = {
    (0, None): 1,
    (1, None): 8,
    (2, None): 3,
    (3, None): 6,
    (0, 0): 4,
    (1, 0): 5,
    (2, 0): 2,
    (3, 0): 7,
    (0, 1): 2,
    (1, 1): 7,
    (2, 1): 4,
    (3, 1): 5,
}
"""EXIF's value for a rotation (quarter turns, anticlockwise) and then a mirroring (0 swaps top and
bottom, 1 left and right)."""


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    begin: int
    """Offset of its content."""
    end: int


class _Boxes:
    """Iterates over the boxes of one file, at most `MAX_PARTS` in all."""

    def __init__(self, image: bytes) -> None:
        self._image, self._left = image, MAX_PARTS

    def inside(self, begin: int, end: int) -> Iterator[_Box]:
        at = begin
        while at + 8 <= end:
            self._left -= 1
            if self._left < 0:
                raise too_many_parts()
            size, kind = struct.unpack_from(">I4s", self._image, at)
            content = at + 8
            if size == 1 and at + 16 <= end:  # a size of 64 bits follows
                (size,) = struct.unpack_from(">Q", self._image, at + 8)
                content = at + 16
            elif size == 0:  # it reaches to the end
                size = end - at
            sound = content - at <= size <= end - at
            if not sound and end == len(self._image) and kind not in _MEDIA_BOXES:
                return  # not a box: something appended to the file
            if size < content - at:
                raise broken("a box is smaller than its own header")
            if at + size > end:
                raise incomplete() if end == len(self._image) else broken("a box is too large")
            yield _Box(kind, content, at + size)
            at += size


def read(image: bytes) -> ImageHeader:
    """Read the header of the primary picture of a HEIC or AVIF file.

    For HEIC the size is the upright one and the orientation 1: libheif turns and crops the picture
    itself. Raises `InvalidImage`, or `UnsupportedMediaType` for films and other codecs.
    """
    boxes = _Boxes(image)
    try:
        meta = None
        for box in boxes.inside(0, len(image)):  # all of them, to see that the file is complete
            if box.begin <= 16 and not _is_picture(image, box):  # the first one
                raise UnsupportedMediaType("A film, or another file of MP4's kind, is no image.")
            if box.kind == b"meta" and meta is None:
                meta = box
        if meta is not None:
            return _primary(image, boxes, meta)
    except (struct.error, IndexError) as error:
        raise broken("a box ends early") from error
    raise broken("it describes no picture")


def _is_picture(image: bytes, ftyp: _Box) -> bool:
    end = min(ftyp.end, ftyp.begin + 4 * _MAX_BRANDS)
    return any(image[at : at + 4] in _BRANDS for at in range(ftyp.begin, end, 4))


def _primary(image: bytes, boxes: _Boxes, meta: _Box) -> ImageHeader:
    number, properties, locations, items_bytes = None, None, None, 0
    associations: list[_Box] = []
    for box in boxes.inside(meta.begin + 4, meta.end):
        if box.kind in (b"iinf", b"iloc", b"iref"):
            items_bytes += box.end - box.begin
            locations = box if box.kind == b"iloc" else locations
        if box.kind == b"pitm":
            form = ">H" if image[box.begin] == 0 else ">I"
            (number,) = struct.unpack_from(form, image, box.begin + 4)
        elif box.kind == b"iprp":
            for part in boxes.inside(box.begin, box.end):
                if part.kind == b"ipco":
                    properties = list(islice(boxes.inside(part.begin, part.end), _MAX_PROPERTIES))
                elif part.kind == b"ipma":
                    associations.append(part)
                    items_bytes += part.end - part.begin
    if items_bytes > _MAX_ITEMS_BYTES:
        raise broken("it describes too many pictures")
    if number is None or properties is None or locations is None:
        raise broken("it describes no picture")
    if _end_of_items(image, locations) > len(image):
        raise incomplete()
    codecs = {_CODECS[each.kind] for each in properties if each.kind in _CODECS}
    if len(codecs) != 1:
        raise UnsupportedMediaType("Of HEIF files, only HEIC (HEVC) and AVIF are supported.")
    own = [
        properties[index - 1]
        for index in _properties_of(number, image, associations)
        if 0 < index <= len(properties)
    ]
    has_alpha = any(
        each.kind == b"auxC" and _ALPHA.search(image, each.begin, min(each.end, each.begin + 64))
        for each in properties
    )
    coded = [each for each in properties if each.kind in _BITS]
    bits = max((_BITS[each.kind](image, each) for each in coded), default=8)
    return _header(image, codecs.pop(), own, has_alpha=has_alpha, bits=bits)


def _hevc_bits(image: bytes, box: _Box) -> int:
    """ISO/IEC 14496-15, HEVCDecoderConfigurationRecord."""
    return 8 + (image[box.begin + 17] & 7) if box.begin + 17 < box.end else 8


def _av1_bits(image: bytes, box: _Box) -> int:
    flags = image[box.begin + 2]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


_BITS = {b"av1C": _av1_bits, b"hvcC": _hevc_bits}


def _end_of_items(image: bytes, iloc: _Box) -> int:
    """The file offset where the data of the last item ends."""
    version, last = image[iloc.begin], 0
    (sizes,) = struct.unpack_from(">H", image, iloc.begin + 4)
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        sizes >> shift & 15 for shift in (12, 8, 4, 0)
    )
    extent_bytes = offset_bytes + length_bytes + (index_bytes if version else 0)
    number = struct.Struct(">I" if version == 2 else ">H")
    at = iloc.begin + 6
    (items,) = number.unpack_from(image, at)
    at += number.size
    for _ in range(min(items, MAX_PARTS)):
        at += number.size
        in_file = True  # else in `idat`, or relative to another item
        if version:
            in_file = struct.unpack_from(">H", image, at)[0] & 15 == 0
            at += 2
        at += 2  # data reference: always this file
        base = int.from_bytes(image[at : at + base_bytes], "big")
        at += base_bytes
        (extents,) = struct.unpack_from(">H", image, at)
        at += 2
        end = at + extents * extent_bytes
        if end > iloc.end:
            raise broken("the list of its items ends early")
        while at < end:
            at += extent_bytes
            length_at = at - length_bytes
            offset = int.from_bytes(image[length_at - offset_bytes : length_at], "big")
            length = int.from_bytes(image[length_at:at], "big")
            if in_file:
                last = max(last, base + offset + length)
    return last


def _properties_of(number: int, image: bytes, associations: list[_Box]) -> list[int]:
    """The numbers of the properties of item `number`."""
    for box in associations:
        found = _properties_in(number, image, box)
        if found is not None:
            return found
    raise broken("its primary picture is not described")


def _properties_in(number: int, image: bytes, ipma: _Box) -> list[int] | None:
    version, wide = image[ipma.begin], image[ipma.begin + 3] & 1
    (entries,) = struct.unpack_from(">I", image, ipma.begin + 4)
    at, item = ipma.begin + 8, struct.Struct(">IB" if version else ">HB")
    for _ in range(min(entries, MAX_PARTS)):
        found, count = item.unpack_from(image, at)
        at += item.size
        if found == number:
            # The highest bit marks a property that readers must understand.
            if wide:
                return [each & 0x7FFF for each in struct.unpack_from(f">{count}H", image, at)]
            return [each & 0x7F for each in image[at : at + count]]
        at += count * (2 if wide else 1)
    return None


def _header(
    image: bytes, content_type: str, own: list[_Box], *, has_alpha: bool, bits: int
) -> ImageHeader:
    size, turn, mirror = None, 0, None
    for each in own:  # in order, as libheif applies them
        if each.kind == b"ispe":
            size = struct.unpack_from(">II", image, each.begin + 4)
        elif each.kind == b"clap" and content_type == HEIC and size is not None:
            wide, wide_of, high, high_of = struct.unpack_from(">IIII", image, each.begin)
            if not wide_of or not high_of:
                raise broken("its clean aperture is invalid")
            size = min(size[0], wide // wide_of), min(size[1], high // high_of)
        elif each.kind == b"irot":
            turn = image[each.begin] & 3
            if turn % 2 and content_type == HEIC and size is not None:
                size = size[1], size[0]
        elif each.kind == b"imir":
            mirror = image[each.begin] & 1
    if size is None:
        raise broken("it does not say the picture's size")
    orientation = 1 if content_type == HEIC else _ORIENTATIONS[turn, mirror]
    weight = weight_of(bits, has_alpha=has_alpha)
    if content_type == AVIF:  # libavif holds several, and colours and alpha separately first
        weight = 4 if has_alpha else 2
    return ImageHeader(
        content_type, size[0], size[1], orientation, has_alpha, bits=bits, weight=weight
    )
