"""Makes hostile TIFF and BMP files."""

from __future__ import annotations

import struct

from tests.support.hostile_files.base import BIG, HUGE, Named, times
from tests.support.hostile_files.exif import _chain
from tests.support.hostile_files.png import zeros_deflated


def _tiff(
    tags: dict[int, tuple[int, int, int]], tail: bytes = b"", following: int = 0, **more: int
) -> bytes:
    """Little-endian, `tags`: tag -> (type, count, value or offset); `tail` starts at byte 1000."""
    entries = {
        256: (4, 1, more.get("width", 64)),
        257: (4, 1, more.get("height", 64)),
        258: (3, 1, more.get("bits", 8)),
        259: (3, 1, more.get("compression", 1)),
        262: (3, 1, 1),
        273: (4, 1, 1000),
        277: (3, 1, more.get("samples", 1)),
        278: (4, 1, more.get("height", 64)),
        279: (4, 1, len(tail)),
    }
    entries.update(tags)
    packed = b"".join(
        struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries) if entries[tag][1]
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(packed) // 12) + packed
    return (head + struct.pack("<I", following)).ljust(1000, b"\0") + tail


def tiffs(size: int) -> Named:
    pixels = bytes(64 * 64)
    plain = _tiff({}, pixels)
    for tag in (256, 258, 259, 262, 273, 277):
        at = plain.index(struct.pack("<H", tag), 10)
        yield f"tiff-no-value-of-{tag}", plain[: at + 4] + bytes(4) + plain[at + 8 :]
    yield "tiff-next-ifd-is-itself", _tiff({}, pixels, following=8)
    yield "tiff-sub-ifd-is-itself", _tiff({330: (4, 1, 8)}, pixels)
    yield "tiff-exif-ifd-is-itself", _tiff({34665: (4, 1, 8)}, pixels)
    table = struct.pack("<I", 8) * (size // 4)
    yield "tiff-millions-of-sub-ifds", _tiff({330: (4, len(table) // 4, 1000)}, table)
    entries = min(0xFFFF, size // 12)
    many = struct.pack("<HHII", 270, 2, HUGE, 0) * entries
    yield "tiff-65535-entries", struct.pack("<2sHIH", b"II", 42, 8, entries) + many + bytes(4)
    yield "tiff-nested-ifds", _chain(size, 330)
    yield "tiff-chained-ifds", _chain(size, None)

    count = size // 8
    offsets = struct.pack("<I", 1000) * count
    lengths = struct.pack("<I", 64) * count
    rows: dict[int, tuple[int, int, int]] = {
        273: (4, count, 1000),
        278: (4, 1, 1),
        279: (4, count, 1000 + len(offsets)),
    }
    yield "tiff-millions-of-strips", _tiff(rows, offsets + lengths, height=count)
    yield "tiff-millions-of-strips-for-64-rows", _tiff(rows, offsets + lengths)
    yield "tiff-strips-of-2-32", _tiff({273: (4, HUGE, 1000), 279: (4, HUGE, 1000)}, pixels)
    yield "tiff-strip-bytes-2-32", _tiff({279: (4, 1, HUGE)}, pixels)
    yield "tiff-strip-bytes-2-32-lzw", _tiff({279: (4, 1, HUGE)}, pixels, compression=5)
    yield "tiff-strip-offset-2-32", _tiff({273: (4, 1, HUGE)}, pixels)
    tiled: dict[int, tuple[int, int, int]] = {273: (4, 0, 0), 278: (4, 0, 0), 279: (4, 0, 0)}
    for side in (0, 1 << 16, 1 << 30, 1 << 31, HUGE):
        tags = {**tiled, 322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 1000)}
        yield f"tiff-tiles-of-{side}", _tiff({**tags, 325: (4, 1, len(pixels))}, pixels)
        packed = zeros_deflated(1 << 20)
        tags[325] = (4, 1, len(packed))
        yield f"tiff-tiles-of-{side}-deflate", _tiff(tags, packed, compression=8)
    number = (BIG // 16 + 1) ** 2
    shared = struct.pack("<I", 1000) * number + struct.pack("<I", 256) * number
    tags = {**tiled, 322: (4, 1, 16), 323: (4, 1, 16)}
    tags |= {324: (4, number, 1000), 325: (4, number, 1000 + 4 * number)}
    yield "tiff-49-megapixels-of-16-pixel-tiles", _tiff(tags, shared, width=BIG, height=BIG)
    tags = {**tiled, 322: (4, 1, 16_384), 323: (4, 1, 16_384), 324: (4, 1, 1000)}
    flat = zeros_deflated(1 << 28)
    tags[325] = (4, 1, len(flat))
    yield "tiff-64-pixels-of-a-268-megapixel-tile", _tiff(tags, flat, compression=8)

    for bits in (16, 32, 64):
        for samples in (1, 3, 4):
            each = {258: (3, samples, 900), 339: (3, samples, 950)} if samples > 2 else {}
            each |= {339: (3, 1, 3)} if samples < 3 and bits > 16 else {}
            flat = zeros_deflated(BIG * BIG * samples * bits // 8)
            file = bytearray(
                _tiff(each, flat, bits=bits, samples=samples, width=BIG, height=BIG, compression=8)
            )
            struct.pack_into("<4H", file, 900, *(bits,) * 4)
            struct.pack_into("<4H", file, 950, *(3 if bits > 16 else 1,) * 4)
            yield f"tiff-49-megapixels-{samples}-samples-of-{bits}-bits", bytes(file)
    for samples in (5, 255, 65_535):
        yield f"tiff-{samples}-samples", _tiff({}, pixels, samples=samples)
        flat = zeros_deflated(min(BIG * BIG * samples, 1 << 31))
        tags = {258: (3, 1, 8)}
        more = {"samples": samples, "width": BIG, "height": BIG, "compression": 8}
        yield f"tiff-49-megapixels-{samples}-samples", _tiff(tags, flat, **more)
    yield "tiff-49-megapixels-declared", _tiff({}, pixels, width=BIG, height=BIG)
    yield "tiff-2-31-square", _tiff({}, pixels, width=0x7FFFFFFF, height=0x7FFFFFFF)
    bomb = zeros_deflated(min(size * 900, 3 << 30))
    yield "tiff-strip-bomb", _tiff({}, bomb, compression=8)
    profile = {34675: (7, size, 1000)}
    yield "tiff-huge-profile", _tiff(profile, bytes(size))
    yield "tiff-value-count-2-32", _tiff({270: (2, HUGE, 1000), 34675: (7, HUGE, 1000)}, pixels)
    yield "tiff-value-count-2-32-doubles", _tiff({50_000: (12, HUGE, 1000)}, pixels)
    for scheme in (2, 3, 4, 6, 7, 32773, 34661, 34676, 34712, 34887, 34925, 50000, 50001):
        more = {"width": BIG, "height": BIG, "compression": scheme}
        yield f"tiff-compression-{scheme}-49-megapixels", _tiff({}, pixels, **more)


def bmps(size: int) -> Named:
    def bitmap(width: int, height: int, bits: int, body: bytes = b"", **more: int) -> bytes:
        info = struct.pack("<IiiHH", 40, width, height, 1, bits)
        info += struct.pack(
            "<IIiiII", more.get("compression", 0), 0, 0, 0, more.get("colours", 0), 0
        )
        return struct.pack("<2sIII", b"BM", 54 + len(body), 0, more.get("at", 54)) + info + body

    yield "bmp-height-minus-2-31", bitmap(64, -(1 << 31), 24, bytes(4096))
    yield "bmp-width-minus-2-31", bitmap(-(1 << 31), 64, 24, bytes(4096))
    yield "bmp-2-31-square", bitmap(0x7FFFFFFF, 0x7FFFFFFF, 24, bytes(4096))
    yield "bmp-width-2-31-height-1", bitmap(0x7FFFFFFF, 1, 1, bytes(4096))
    for colours in (HUGE, 0x7FFFFFFF, 0x40000000, 257):
        yield f"bmp-{colours}-colours", bitmap(64, 64, 8, bytes(size), colours=colours)
    yield "bmp-offset-2-32", bitmap(64, 64, 24, bytes(12_288), at=HUGE)
    yield "bmp-offset-0", bitmap(64, 64, 24, bytes(12_288), at=0)
    table = bytes(1024)
    for bits, compression in ((8, 1), (4, 2)):
        more = {"compression": compression, "at": 54 + 1024}
        name = f"bmp-rle{bits}"
        yield f"{name}-49-megapixels-empty", bitmap(BIG, BIG, bits, table + b"\0\1", **more)
        yield f"{name}-end-of-lines", bitmap(BIG, BIG, bits, table + times(b"\0\0", size), **more)
        yield f"{name}-jumps", bitmap(BIG, BIG, bits, table + times(b"\0\2\0\0", size), **more)
        yield (
            f"{name}-far-jumps",
            bitmap(64, 64, bits, table + times(b"\0\2\xff\xff", size), **more),
        )
        yield f"{name}-empty-runs", bitmap(64, 64, bits, table + times(b"\0\3", size), **more)
        yield f"{name}-runs", bitmap(64, 64, bits, table + times(b"\xff\x01", size), **more)
    yield "bmp-49-megapixels-declared", bitmap(BIG, BIG, 24, bytes(4096))
    yield "bmp-49-megapixels-1-bit", bitmap(BIG, BIG, 1, bytes(8) + bytes(876 * BIG), at=62)
    yield "bmp-header-of-2-32", b"BM" + bytes(8) + struct.pack("<II", 54, HUGE) + bytes(4096)
