"""Makes BMP files."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support.camera_files.base import (
    CameraFile,
    Pixels,
    by_opencv,
    maker,
    rgb_of,
    with_alpha,
)
from tests.support.camera_files.png import packed
from tests.support.images import encoded


def bmps(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)
    made = maker("bmp", pixels)
    yield made("24", encoded(picture, "BMP"))
    see_through, flat = with_alpha(picture)
    opaque = _bmp(np.dstack([pixels[:, :, ::-1], np.zeros(pixels.shape[:2], np.uint8)]), 32)
    yield made("32-no-alpha", opaque)
    grey = picture.convert("L")
    yield made("grey-8", encoded(grey, "BMP"), rgb_of(grey))
    indexed = picture.quantize(255)
    yield made("palette-8", encoded(indexed, "BMP"), rgb_of(indexed))
    bilevel = picture.convert("1")
    yield made("1", encoded(bilevel, "BMP"), rgb_of(bilevel))
    few = picture.quantize(16)
    colours, table = np.asarray(few), _bmp_table(few, 16)
    yield made("palette-4", _bmp(colours, 4, table=table), rgb_of(few))
    yield made("24-top-down", _bmp(np.ascontiguousarray(pixels[:, :, ::-1]), 24, top_down=True))
    alpha = np.asarray(see_through)[:, :, [2, 1, 0, 3]]
    for size, version in ((108, 4), (124, 5)):
        data = _bmp(alpha, 32, header=size, compression=3)
        yield made(f"32-alpha-v{version}", data, flat, has_alpha=True, tolerance=1.0)
    unused = np.dstack([pixels[:, :, ::-1], np.zeros(pixels.shape[:2], np.uint8)])
    yield made("32-alpha-unused", _bmp(unused, 32, header=124, compression=3))
    data = by_opencv(".bmp", see_through)
    yield made("32-alpha-opencv", data, flat, has_alpha=True, tolerance=1.0)
    deep = np.asarray(indexed)
    table = _bmp_table(indexed, 256)
    yield made("rle8", _bmp(deep, 8, table=table, compression=1), rgb_of(indexed))
    yield made("os2", _bmp_os2(pixels))
    yield made("16-555", _bmp_555(pixels), pixels, tolerance=8.0)


def _bmp(
    rows: Pixels,
    bits: int,
    *,
    table: bytes = b"",
    header: int = 40,
    compression: int = 0,
    top_down: bool = False,
) -> bytes:
    height, width = rows.shape[:2]
    order = rows if top_down else rows[::-1]
    if compression == 1:
        body = b"".join(_run_lengths(row) + b"\0\0" for row in order) + b"\0\1"
    else:
        coded = (packed(row.reshape(-1), bits) if bits < 8 else row.tobytes() for row in order)
        body = b"".join(row + bytes(-len(row) % 4) for row in coded)
    info = struct.pack("<Iii", header, width, -height if top_down else height)
    info += struct.pack(
        "<HHIIiiII", 1, bits, compression, len(body), 2835, 2835, len(table) // 4, 0
    )
    if header > 40:
        info += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    info = info.ljust(header, b"\0") + table
    return (
        struct.pack("<2sIHHI", b"BM", 14 + len(info) + len(body), 0, 0, 14 + len(info))
        + info
        + body
    )


def _bmp_table(indexed: Image.Image, colours: int) -> bytes:
    table = np.zeros((colours, 4), np.uint8)
    given = np.asarray(indexed.getpalette("RGB"), np.uint8).reshape(-1, 3)[:colours]
    table[: len(given), :3] = given[:, ::-1]
    return table.tobytes()


def _run_lengths(row: Pixels) -> bytes:
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    out = bytearray()
    for start, end in zip(starts, np.r_[starts[1:], len(row)], strict=True):
        left = int(end - start)
        while left:
            out += bytes((min(left, 255), int(row[start])))
            left -= min(left, 255)
    return bytes(out)


def _bmp_os2(pixels: Pixels) -> bytes:
    """With the short header of OS/2 and Windows 2."""
    newer = _bmp(np.ascontiguousarray(pixels[:, :, ::-1]), 24)
    height, width = pixels.shape[:2]
    info = struct.pack("<IHHHH", 12, width, height, 1, 24)
    return struct.pack("<2sIHHI", b"BM", len(newer) - 28, 0, 0, 26) + info + newer[54:]


def _bmp_555(pixels: Pixels) -> bytes:
    red, green, blue = (pixels[:, :, channel].astype("<u2") >> 3 for channel in range(3))
    return _bmp((red << 10 | green << 5 | blue).astype("<u2"), 16)  # type: ignore[arg-type]
