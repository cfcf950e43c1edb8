"""Makes hostile WebP and GIF files."""

from __future__ import annotations

import struct
from functools import cache

from PIL import Image

from tests.support.hostile_files.base import BIG, HUGE, Named, ramp, times
from tests.support.hostile_files.exif import exif_blocks
from tests.support.images import encoded


def _riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", min(len(body), HUGE)) + body


def _riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _canvas(width: int, height: int, flags: int = 0) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _riff_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + sides)


@cache
def _flat_webp(width: int, height: int) -> bytes:
    """Only the VP8L chunk."""
    data = encoded(Image.new("RGB", (width, height)), "WEBP", lossless=True, quality=0, method=0)
    return data[12:]


def webps(size: int) -> Named:
    frame = encoded(ramp(), "WEBP")[12:]
    for name, chunk in (
        ("unknown", _riff_chunk(b"abcd", b"")),
        ("exif", _riff_chunk(b"EXIF", b"")),
    ):
        chunks = times(chunk, size)
        yield f"webp-tiny-{name}-chunks-first", _riff(_canvas(64, 64, 8), chunks, frame)
        yield f"webp-tiny-{name}-chunks-last", _riff(_canvas(64, 64, 8), frame, chunks)
    yield "webp-frames-repeated", _riff(_canvas(64, 64), times(frame, size))
    yield "webp-canvas-huge", _riff(_canvas(1 << 24, 1 << 24), frame)
    yield "webp-canvas-49-megapixels", _riff(_canvas(BIG, BIG), frame)
    yield "webp-canvas-small-frame-huge", _riff(_canvas(64, 64), _flat_webp(16_383, 3_000))
    yield "webp-49-megapixels-lossless", _riff(_flat_webp(16_383, 2_990))
    yield "webp-16383-square-declared", _riff(_declaring_vp8(frame, 16_383, 16_383))
    yield "webp-riff-size-2-32", b"RIFF\xff\xff\xff\xffWEBP" + frame
    yield "webp-chunk-size-2-32", _riff(_canvas(64, 64), b"abcd\xff\xff\xff\xff", frame)
    control = _riff_chunk(b"ANIM", bytes(6))
    place = bytes(6) + b"\x3f\0\0\x3f\0\0" + bytes(4)
    one = _riff_chunk(b"ANMF", place + frame)
    yield "webp-many-frames", _riff(_canvas(64, 64, 2), control, times(one, size))
    empty = _riff_chunk(b"ANMF", place)
    yield "webp-many-empty-frames", _riff(_canvas(64, 64, 2), control, one, times(empty, size))
    moving = _riff(_canvas(BIG, BIG, 2), control, one * 50)
    yield "webp-animated-canvas-49-megapixels", moving
    for name, block in exif_blocks(size):
        exif = _riff_chunk(b"EXIF", block)
        yield f"webp-exif-{name}", _riff(_canvas(64, 64, 8), frame, exif)


def _declaring_vp8(chunk: bytes, width: int, height: int) -> bytes:
    at = chunk.index(b"\x9d\x01\x2a") + 3
    return chunk[:at] + struct.pack("<HH", width, height) + chunk[at + 4 :]


def gifs(size: int) -> Named:
    plain = encoded(ramp().quantize(255), "GIF")
    colours = 13 + 3 * (2 << (plain[10] & 7))
    screen, at = plain[:colours], plain.index(b",", colours)
    frame = plain[at:-1]
    coded = frame[:11]  # descriptor and code size

    def sized(width: int, height: int, body: bytes) -> bytes:
        return screen[:6] + struct.pack("<HH", width, height) + screen[10:] + body + b";"

    def placed(width: int, height: int) -> bytes:
        return frame[:5] + struct.pack("<HH", width, height) + frame[9:]

    yield "gif-one-byte-sub-blocks", sized(64, 64, coded + times(b"\x01\0", size) + b"\0")
    filler = frame[:-1] + times(b"\x01\0", size) + b"\0"
    yield "gif-sub-blocks-behind-pixels", sized(64, 64, filler)
    clears = frame[:10] + b"\x02" + times(b"\xff" + b"\x24" * 255, size) + b"\0"
    yield "gif-clear-codes", sized(64, 64, clears)
    comment = b"!\xfe" + b"\x01a" + b"\0"
    yield "gif-many-comments", sized(64, 64, times(comment, size) + frame)
    yield "gif-many-empty-comments", sized(64, 64, times(b"!\xfe\0", size) + frame)
    yield (
        "gif-comment-of-one-byte-blocks",
        sized(64, 64, b"!\xfe" + times(b"\x01a", size) + b"\0" + frame),
    )
    control = b"!\xf9\x04\x01\0\0\0\0"
    yield "gif-many-controls", sized(64, 64, times(control, size) + frame)
    yield "gif-many-unknown-extensions", sized(64, 64, times(b"!\x77\0", size) + frame)
    yield "gif-screen-small-frame-huge", sized(1, 1, placed(65_535, 65_535))
    yield "gif-screen-huge-frame-small", sized(65_535, 65_535, frame)
    yield "gif-49-megapixels-declared", sized(BIG, BIG, placed(BIG, BIG))
    yield "gif-screen-49-megapixels", sized(BIG, BIG, frame)
    one = b",\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02\x44\x01\0"
    yield "gif-many-frames", sized(64, 64, times(one, size))
    yield "gif-many-frames-49-megapixels", sized(BIG, BIG, one * 50)
    yield "gif-trailer-repeated", sized(64, 64, frame + times(b";", size))
    yield "gif-zeros-before-frame", sized(64, 64, bytes(size) + frame)
