"""Makes hostile JPEG files."""

from __future__ import annotations

import struct
from functools import cache

from tests.support.hostile_files.base import BIG, HUGE, Named, ramp, times
from tests.support.hostile_files.exif import exif_blocks
from tests.support.images import encoded


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


@cache
def _jpeg(*, progressive: bool = False) -> bytes:
    return encoded(ramp(), "JPEG", progressive=progressive)


def _declaring(jpeg: bytes, width: int, height: int, frame: int | None = None) -> bytes:
    """The JPEG with another size, and perhaps another kind, in its frame header."""
    at = max(jpeg.find(b"\xff\xc0\x00\x11"), jpeg.find(b"\xff\xc2\x00\x11"))
    kind = jpeg[at + 1] if frame is None else frame
    head = struct.pack(">BBHBHH", 0xFF, kind, 17, 8, height, width)
    return jpeg[:at] + head + jpeg[at + 9 :]


def jpegs(size: int) -> Named:
    plain = _jpeg()
    progressive = _jpeg(progressive=True)

    def behind_soi(more: bytes, jpeg: bytes = plain) -> bytes:
        return jpeg[:2] + more + jpeg[2:]

    def in_scan(more: bytes, jpeg: bytes = plain) -> bytes:
        return jpeg[:-2] + more + jpeg[-2:]

    sparse = b"\xff" * ((1 << 20) - 8) + b"\x00" + _segment(0xFE, b"")
    yield "jpeg-fill-bytes-and-a-comment-each-mb", in_scan(times(sparse, size))
    for name, marker in (("app1", 0xE1), ("app2", 0xE2), ("comment", 0xFE)):
        small = _segment(marker, b"Exif\0\0" if marker == 0xE1 else b"MPF\0ab")
        yield f"jpeg-small-{name}-segments", behind_soi(times(small, size))
        yield f"jpeg-empty-{name}-segments", behind_soi(times(_segment(marker, b""), size))
    big = _segment(0xE1, bytes(65_533))
    yield "jpeg-large-segments", behind_soi(times(big, size))
    yield "jpeg-fill-bytes", behind_soi(b"\xff" * size)
    yield "jpeg-fill-bytes-before-eoi", in_scan(b"\xff" * size)
    yield "jpeg-segment-of-length-0", behind_soi(times(b"\xff\xe1\0\0", size))
    yield "jpeg-garbage-between-segments", behind_soi(times(_segment(0xFE, b"") + bytes(12), size))
    yield "jpeg-garbage-behind-soi", behind_soi(bytes(size))
    yield "jpeg-soi-repeated", behind_soi(times(b"\xff\xd8", size))
    yield "jpeg-frames-repeated", behind_soi(times(plain[plain.index(b"\xff\xc0") :][:19], size))
    tables = plain[plain.index(b"\xff\xdb") : plain.index(b"\xff\xc0")]
    yield "jpeg-quantization-tables-repeated", behind_soi(times(tables, size))
    huffman = plain[plain.index(b"\xff\xc4") : plain.index(b"\xff\xda")]
    yield "jpeg-huffman-tables-repeated", behind_soi(times(huffman, size))

    yield "jpeg-scan-of-ff00", in_scan(times(b"\xff\0", size))
    restarts = b"".join(bytes((0xFF, marker)) for marker in range(0xD0, 0xD8))
    yield "jpeg-scan-of-restart-markers", in_scan(times(restarts, size))
    yield "jpeg-scan-of-same-restart-marker", in_scan(times(b"\xff\xd3", size))
    yield "jpeg-scan-of-zeros", in_scan(bytes(size))
    yield "jpeg-scan-of-reserved-markers", in_scan(times(b"\xff\x02", size))
    scan = plain[plain.index(b"\xff\xda") : -2]
    head = scan[:14]
    yield "jpeg-scan-headers-repeated", in_scan(times(head, size))

    # Each scan has libjpeg pass over the coefficients of the whole frame once more.
    tiny = _segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + b"\0"
    for pixels, name in ((64, "64-pixels"), (BIG, "49-megapixels")):
        frame = _declaring(progressive, pixels, pixels)
        yield f"jpeg-scans-progressive-{name}", in_scan(times(tiny, size), frame)
    frame = _declaring(progressive, BIG, BIG)
    yield "jpeg-300-scans-49-megapixels", in_scan(tiny * 300, frame)
    yield "jpeg-20-scans-49-megapixels", in_scan(tiny * 20, frame)
    yield "jpeg-tables-between-scans", in_scan(times(huffman + tables + tiny, size), progressive)
    yield "jpeg-49-megapixels-declared", _declaring(plain, BIG, BIG)
    yield "jpeg-progressive-49-megapixels-declared", frame
    yield "jpeg-arithmetic-49-megapixels", in_scan(bytes(1000), _declaring(plain, BIG, BIG, 0xC9))
    yield "jpeg-65500-pixels-square", _declaring(plain, 65_500, 65_500)
    yield "jpeg-height-0", _declaring(plain, 64, 0)
    for kind in (0xC3, 0xC5, 0xCB, 0xCD):
        yield f"jpeg-frame-{kind:x}", _declaring(plain, 64, 64, kind)

    for name, block in exif_blocks(min(size, 65_000)):
        one = _segment(0xE1, b"Exif\0\0" + block)
        yield f"jpeg-exif-{name}", behind_soi(one)
        if len(one) < 200:
            yield f"jpeg-exif-{name}-repeated", behind_soi(times(one, size))
    for name, index in _picture_indexes():
        yield f"jpeg-mpf-{name}", behind_soi(_segment(0xE2, b"MPF\0" + index)) + plain
    profile = b"ICC_PROFILE\0" + bytes((1, 255)) + bytes(100)
    yield "jpeg-icc-same-part-repeated", behind_soi(times(_segment(0xE2, profile), size))
    part = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", HUGE, 0)
    yield "jpeg-xmp-extension-of-4-gb", behind_soi(times(_segment(0xE1, part + b"x"), size))
    yield "jpeg-of-jpegs", times(plain, size)


def _picture_indexes() -> Named:
    """Multi-Picture Format indexes that name themselves, or more pictures than there are."""

    def whole(count: int, length: int, entries: bytes, following: int = 0) -> bytes:
        tags = struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
        tags += struct.pack("<HHII", 0xB001, 4, 1, count)
        tags += struct.pack("<HHII", 0xB002, 7, length, 50)
        return (
            struct.pack("<2sHIH", b"II", 42, 8, 3) + tags + struct.pack("<I", following) + entries
        )

    itself = struct.pack("<IIIHH", 0, 1000, 0, 0, 0)
    yield "itself", whole(2, 32, itself * 2)
    yield "2-32-pictures", whole(HUGE, HUGE, itself)
    yield "ifd-loop", whole(2, 32, itself * 2, following=8)
    yield "4000-times-itself", whole(4000, 64_000, itself * 4000)
    yield "offsets-outside", whole(2, 32, struct.pack("<IIIHH", 0, HUGE, HUGE, 1, 1) * 2)
