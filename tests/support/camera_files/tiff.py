"""Makes TIFF files, and EXIF blocks, which have the same format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.camera_files.base import (
    LOSSY,
    CameraFile,
    Pixels,
    Transpose,
    by_opencv,
    maker,
    rgb_of,
    stored,
    with_alpha,
)
from tests.support.images import encoded


def tiffs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)
    made = maker("tiff", pixels)
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"):
        data = encoded(picture, "TIFF", compression=name)
        yield made(name.replace("tiff_", "").replace("raw", "uncompressed"), data)
    yield made("jpeg", encoded(picture, "TIFF", compression="jpeg", quality=90), tolerance=LOSSY)
    grey = picture.convert("L")
    yield made("grey", encoded(grey, "TIFF"), rgb_of(grey))
    indexed = picture.quantize(255)
    yield made("palette", encoded(indexed, "TIFF"), rgb_of(indexed))
    bilevel = picture.convert("1")
    for name in ("raw", "group3", "group4", "packbits"):
        yield made(f"bilevel-{name}", encoded(bilevel, "TIFF", compression=name), rgb_of(bilevel))
    cmyk = picture.convert("CMYK")
    yield made("cmyk", encoded(cmyk, "TIFF"), tolerance=2.0)
    see_through, flat = with_alpha(picture)
    yield made("rgba", encoded(see_through, "TIFF"), flat, has_alpha=True, tolerance=1.0)
    wide = np.asarray(grey).astype(np.uint16) * 257
    yield made("grey-16", encoded(Image.fromarray(wide), "TIFF"), rgb_of(grey))
    yield made("rgb-16-opencv", by_opencv(".tiff", picture, deep=True))
    yield made("rgb-float-opencv", by_opencv(".tiff", picture, floating=True))
    other = picture.transpose(Transpose.ROTATE_180)
    data = encoded(picture, "TIFF", save_all=True, append_images=[other, other])
    yield made("pages", data)
    yield made("big-tiff", encoded(picture, "TIFF", big_tiff=True))
    yield made("one-strip", encoded(picture, "TIFF", strip_size=1 << 30))
    yield made("row-strips", encoded(picture, "TIFF", strip_size=1))
    for orientation in range(2, 9):
        data = encoded(stored(picture, orientation), "TIFF", tiffinfo={274: orientation})
        yield made(f"orientation-{orientation}", data, orientation=orientation)
    turned = np.asarray(stored(picture, 6))
    six: TiffTags = {274: (3, (6,))}
    yield made("orientation-6-tiles", _tiled(turned, "<", more=six), orientation=6)
    deep = (turned.astype(np.uint16) * 257).astype("<u2")
    yield made("orientation-6-rgb-16", _striped(deep, "<", more=six), orientation=6)
    name = {"tiffinfo": {274: 6}}
    for mode, kind in (("L", "grey"), ("P", "palette"), ("1", "bilevel"), ("CMYK", "cmyk")):
        other = picture.quantize(255) if mode == "P" else picture.convert(mode)
        data = encoded(stored(other, 6), "TIFF", **name)
        yield made(f"orientation-6-{kind}", data, rgb_of(other), orientation=6, tolerance=2.0)
    wide = np.asarray(stored(grey, 6)).astype(np.uint16) * 257
    data = encoded(Image.fromarray(wide), "TIFF", **name)
    yield made("orientation-6-grey-16", data, rgb_of(grey), orientation=6)
    data = encoded(stored(see_through, 6), "TIFF", **name)
    yield made("orientation-6-rgba", data, flat, orientation=6, has_alpha=True, tolerance=1.0)
    data = by_opencv(".tiff", see_through, deep=True)
    yield made("rgba-16-opencv", data, flat, has_alpha=True, tolerance=1.0)
    for bits in (8, 16):
        data = _associated(see_through, bits)
        yield made(f"rgba-associated-{bits}", data, flat, has_alpha=True, tolerance=2.0)
    for order, ending in (("<", "intel"), (">", "motorola")):
        yield made(f"strips-{ending}", _striped(pixels, order))
        yield made(f"tiles-{ending}", _tiled(pixels, order))
        yield made(f"planes-{ending}", _planar(pixels, order))
        deep = pixels.astype(np.uint16) * 257
        yield made(f"rgb-16-{ending}", _striped(deep.astype(f"{order}u2"), order))
    yield made("tiles-deflate", _tiled(pixels, "<", compression=8))


TiffTags = dict[int, tuple[int, bytes | tuple[int, ...]]]


def _tiff_of(
    shape: tuple[int, ...], blocks: list[bytes], more: TiffTags, order: str, where: tuple[int, int]
) -> bytes:
    """A TIFF of RGB `blocks`; `where`: the tags with their offsets and lengths."""
    height, width = shape[:2]
    offsets = [0]
    tags: TiffTags = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (8, 8, 8)),
        259: (3, (1,)),
        262: (3, (2,)),
        277: (3, (3,)),
        where[0]: (4, (0,) * len(blocks)),
        where[1]: (4, tuple(len(block) for block in blocks)),
        **more,
    }
    start = 8 + len(ifd(tags, order, 8))
    offsets = [start + sum(len(block) for block in blocks[:nth]) for nth in range(len(blocks))]
    tags[where[0]] = (4, tuple(offsets))
    return tiff_header(order) + ifd(tags, order, 8) + b"".join(blocks)


def _associated(see_through: Image.Image, bits: int = 8) -> bytes:
    """Colours multiplied with their alpha, as the TIFF says by ExtraSamples 1."""
    pixels = np.asarray(see_through).astype(np.uint16)
    pixels[:, :, :3] = (pixels[:, :, :3] * pixels[:, :, 3:] + 127) // 255
    more: TiffTags = {258: (3, (bits,) * 4), 277: (3, (4,)), 338: (3, (1,))}
    if bits == 16:
        return _striped((pixels * np.uint16(257)).astype("<u2"), "<", more)
    return _striped(pixels.astype(np.uint8), "<", more)


def _striped(pixels: NDArray[np.generic], order: str, more: TiffTags | None = None) -> bytes:
    rows = 16
    parts = [pixels[top : top + rows].tobytes() for top in range(0, len(pixels), rows)]
    bits = (pixels.dtype.itemsize * 8,) * 3
    return _tiff_of(
        pixels.shape, parts, {258: (3, bits), 278: (3, (rows,)), **(more or {})}, order, (273, 279)
    )


def _tiled(pixels: Pixels, order: str, compression: int = 1, more: TiffTags | None = None) -> bytes:
    """Tiles of 64 x 64, the last ones reaching over the edge."""
    down, right = (-side % 64 for side in pixels.shape[:2])
    padded = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
    corners = [
        (top, left) for top in range(0, len(padded), 64) for left in range(0, padded.shape[1], 64)
    ]
    parts = [padded[top : top + 64, left : left + 64].tobytes() for top, left in corners]
    if compression == 8:
        parts = [zlib.compress(part) for part in parts]
    tags: TiffTags = {259: (3, (compression,)), 322: (3, (64,)), 323: (3, (64,)), **(more or {})}
    return _tiff_of(pixels.shape, parts, tags, order, (324, 325))


def _planar(pixels: Pixels, order: str) -> bytes:
    parts = [pixels[:, :, channel].tobytes() for channel in range(3)]
    more: TiffTags = {278: (4, (len(pixels),)), 284: (3, (2,))}
    return _tiff_of(pixels.shape, parts, more, order, (273, 279))


def tiff_header(order: str) -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)


def ifd(tags: TiffTags, order: str, at: int, following: int = 0) -> bytes:
    """An image file directory that starts `at` bytes into its TIFF, with the values that do not
    fit into it behind it. Types: 2 text, 3 short, 4 long, 7 bytes."""
    room = at + 2 + 12 * len(tags) + 4
    entries, values = bytearray(struct.pack(f"{order}H", len(tags))), bytearray()
    for tag, (kind, value) in sorted(tags.items()):
        if isinstance(value, bytes):
            raw = value
        else:
            raw = struct.pack(f"{order}{len(value)}{'H' if kind == 3 else 'I'}", *value)
        entries += struct.pack(f"{order}HHI", tag, kind, len(value))
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", room + len(values))
            values += raw + bytes(len(raw) % 2)
    return bytes(entries + struct.pack(f"{order}I", following) + values)


def exif_with_thumbnail(picture: Image.Image, order: str, *, orientation: int) -> bytes:
    """An APP1 payload as cameras write it: make, maker note, sub-directory, and a thumbnail in a
    second directory, rotated as the picture is."""
    small = stored(picture, orientation)
    small.thumbnail((160, 120))
    thumbnail = encoded(small, "JPEG")
    tags: TiffTags = {
        271: (2, b"Camera\0"),
        272: (2, b"Model with a long name\0"),
        274: (3, (orientation,)),
        34665: (4, (0,)),
    }
    own: TiffTags = {36864: (7, b"0232"), 37500: (7, b"maker note " * 300)}
    sub_at = 8 + len(ifd(tags, order, 8))
    second_at = sub_at + len(ifd(own, order, sub_at))
    tags[34665] = (4, (sub_at,))
    second: TiffTags = {259: (3, (6,)), 513: (4, (0,)), 514: (4, (len(thumbnail),))}
    second[513] = (4, (second_at + len(ifd(second, order, second_at)),))
    return (
        b"Exif\0\0"
        + tiff_header(order)
        + ifd(tags, order, 8, second_at)
        + ifd(own, order, sub_at)
        + ifd(second, order, second_at)
        + thumbnail
    )
