"""Makes hostile PNG files."""

from __future__ import annotations

import struct
import zlib

from tests.support.hostile_files.base import BIG, HUGE, Named, ramp, times
from tests.support.hostile_files.exif import exif_blocks
from tests.support.images import encoded

PNG = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _ihdr(width: int, height: int, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def zeros_deflated(count: int) -> bytes:
    """A zlib stream of `count` zero bytes, a thousandth as long, without compressing them all:
    after a full flush, a deflate block can be repeated."""
    unit = 1 << 20
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(unit)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    rest = last.compress(bytes(count % unit)) + last.flush()
    check = struct.pack(">I", (count % 65_521) << 16 | 1)
    return b"\x78\xda" + block * (count // unit) + rest + check


def _flat_png(width: int, height: int, bits: int, colour: int, interlaced: int = 0) -> bytes:
    """Black. The rows of an interlaced picture have more filter bytes than are counted here; a
    few too many do no harm."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = (width * channels * bits + 7) // 8 + 1
    count = row * height + (16 * (width + height) if interlaced else 0)
    pixels = _chunk(b"IDAT", zeros_deflated(count))
    return PNG + _ihdr(width, height, bits, colour, interlaced) + pixels + _chunk(b"IEND", b"")


def pngs(size: int) -> Named:
    plain = encoded(ramp(), "PNG")
    head, rest, end = plain[:33], plain[33:-12], plain[-12:]

    for kind in (b"tEXt", b"zTXt", b"iTXt", b"IDAT", b"eXIf", b"iCCP", b"sPLT", b"fdAT", b"prVt"):
        chunks = times(_chunk(kind, b""), size)
        name = kind.decode().lower()
        yield f"png-empty-{name}-first", head + chunks + rest + end
        yield f"png-empty-{name}-last", head + rest + chunks + end
    yield "png-unknown-critical", head + times(_chunk(b"QQQQ", b""), size) + rest + end
    yield "png-small-text", head + times(_chunk(b"tEXt", b"k\0v"), size) + rest + end
    # A gigabyte or more each when unpacked.
    bomb = zeros_deflated(min(size * 900, 3 << 30))
    yield "png-ztxt-bomb", head + _chunk(b"zTXt", b"k\0\0" + bomb) + rest + end
    yield "png-itxt-bomb", head + _chunk(b"iTXt", b"k\0\1\0\0\0" + bomb) + rest + end
    yield "png-iccp-bomb", head + _chunk(b"iCCP", b"k\0\0" + bomb) + rest + end
    small = zeros_deflated(4 << 20)
    many = times(_chunk(b"zTXt", b"k\0\0" + small), min(size, 4_000_000))
    yield "png-many-ztxt-bombs", head + many + rest + end
    yield "png-idat-bomb", head + _chunk(b"IDAT", bomb) + end
    entries = struct.pack("<2sHIH", b"II", 42, 8, 1000) + bytes(12 * 1000)
    yield "png-full-exif-blocks", head + times(_chunk(b"eXIf", entries), size) + rest + end
    yield "png-huge-exif", head + _chunk(b"eXIf", bytes(size)) + rest + end
    for name, block in exif_blocks(size):
        yield f"png-exif-{name}", head + _chunk(b"eXIf", block) + rest + end
    for length in (0x7FFFFFFF, 0x80000000, HUGE):
        lying = struct.pack(">I4s", length, b"tEXt")
        yield f"png-chunk-of-{length:x}", head + lying + rest + end
        yield f"png-idat-of-{length:x}", head + struct.pack(">I4s", length, b"IDAT") + rest + end
    yield "png-ihdr-twice", head + _ihdr(20_000, 20_000) + rest + end
    yield "png-idat-before-ihdr", PNG + rest + head[8:] + end
    yield "png-garbage-crc", head[:-4] + bytes(4) + rest + end
    yield "png-size-2-31", PNG + _ihdr(0x7FFFFFFF, 0x7FFFFFFF) + rest + end
    yield "png-one-row-of-49-megapixels", _flat_png(BIG * BIG, 1, 8, 0)
    yield "png-one-column-of-49-megapixels", _flat_png(1, BIG * BIG, 8, 0)
    # The picture that froze us: Pillow unpacked all of it in search of EXIF behind the pixels.
    yield "png-179-megapixels", _flat_png(13_377, 13_377, 8, 2)
    yield "png-49-megapixels", _flat_png(BIG, BIG, 8, 2)
    yield "png-49-megapixels-rgba-16", _flat_png(BIG, BIG, 16, 6)
    yield "png-49-megapixels-rgba-16-interlaced", _flat_png(BIG, BIG, 16, 6, 1)
    frame = _flat_png(BIG, BIG, 8, 2)[33:-12][8:-4]
    place = struct.pack(">IIIIHHBB", BIG, BIG, 0, 0, 1, 10, 0, 0)
    frames = [_chunk(b"fcTL", struct.pack(">I", 0) + place) + _chunk(b"IDAT", frame)]
    for number in range(1, 12):
        frames.append(_chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + place))
        frames.append(_chunk(b"fdAT", struct.pack(">I", 2 * number) + frame))
    control = _chunk(b"acTL", struct.pack(">II", 12, 0))
    moving = PNG + _ihdr(BIG, BIG) + control + b"".join(frames) + end
    yield "png-12-frames-of-49-megapixels", moving
    control = _chunk(b"acTL", struct.pack(">II", HUGE, 0))
    yield "png-2-32-frames", head + control + rest + end
