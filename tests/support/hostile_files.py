"""Files of a wanted size with structures that cost a careless reader time or memory.

Most end in, or wrap, a small valid picture, so that a reader has a reason to wade through them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image

BIG = 7_000
"""49 megapixels are BIG x BIG: just below the gateway's default limit."""
HUGE = 0xFFFFFFFF

Named = Iterator[tuple[str, bytes]]


def hostile_files(size_bytes: int) -> Named:
    """(name, file) for every format. Files whose point is to grow come close to `size_bytes`;
    those that are bad by what they declare stay small."""
    for of_a_format in (jpegs, pngs, webps, gifs, tiffs, bmps, isobmffs):
        yield from of_a_format(size_bytes)


def _times(unit: bytes, size: int) -> bytes:
    return unit * max(1, size // len(unit))


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _picture(side: int = 64) -> Image.Image:
    ramp = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) % 251
    return Image.fromarray(ramp.astype(np.uint8))


# --- EXIF, which most formats carry ---------------------------------------------------------------


def exif_blocks(size: int) -> Named:
    """TIFF blocks without any prefix. Entries are little-endian: tag, type, count, value."""

    def block(*entries: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
        packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        return head + packed + struct.pack("<I", following) + tail

    turned = (274, 3, 1, 6)
    yield "next-ifd-is-itself", block(turned, following=8)
    yield "sub-ifd-is-itself", block((34665, 4, 1, 8), turned)
    yield "all-sub-ifds-loop", block(*((tag, 4, 1, 8) for tag in (330, 34665, 34853, 40965)))
    yield "count-of-2-32", block((274, 3, HUGE, 8), (270, 2, HUGE, 8), (271, 12, HUGE, 8))
    yield "offset-of-2-32", block((270, 2, 100, HUGE), (34665, 4, 1, HUGE), following=HUGE)
    yield "ifd-at-2-32", struct.pack("<2sHI", b"II", 42, HUGE)
    entries = min(0xFFFF, max(1, (size - 14) // 12))
    many = struct.pack("<HHII", 270, 2, 4, 0) * entries
    yield "65535-entries", struct.pack("<2sHIH", b"II", 42, 8, entries) + many + bytes(4)
    yield "65535-declared", struct.pack("<2sHIH", b"II", 42, 8, 0xFFFF) + bytes(12)
    # Every entry has a value as long as the block: reading each costs entries x size.
    entries = min(0xFFFF, max(1, size // 24))
    values = struct.pack("<HHII", 37500, 7, size - 100, 50) * entries
    whole = struct.pack("<2sHIH", b"II", 42, 8, entries) + values
    yield "overlapping-values", whole.ljust(size, b"\0")
    yield "nested-ifds", _chain(size, 34665)
    yield "chained-ifds", _chain(size, None)


def _chain(size: int, pointer: int | None) -> bytes:
    """Directories of one entry, each leading to the next: by a sub-IFD, or as the next page."""
    count = max(1, (size - 8) // 18)
    at = 8 + 18 * np.arange(1, count + 1, dtype=np.uint32)
    at[-1] = 0
    rows = np.zeros(
        count,
        np.dtype("<u2, <u2, <u2, <u4, <u4, <u4"),
    )
    rows["f0"] = 1
    rows["f1"], rows["f2"], rows["f3"] = pointer or 274, 4 if pointer else 3, 1
    rows["f4"] = at if pointer else 1
    rows["f5"] = 0 if pointer else at
    return struct.pack("<2sHI", b"II", 42, 8) + rows.tobytes()


# --- JPEG -----------------------------------------------------------------------------------------


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


@cache
def _jpeg(*, progressive: bool = False) -> bytes:
    return _saved(_picture(), "JPEG", progressive=progressive)


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
    yield "jpeg-fill-bytes-and-a-comment-each-mb", in_scan(_times(sparse, size))
    for name, marker in (("app1", 0xE1), ("app2", 0xE2), ("comment", 0xFE)):
        small = _segment(marker, b"Exif\0\0" if marker == 0xE1 else b"MPF\0ab")
        yield f"jpeg-small-{name}-segments", behind_soi(_times(small, size))
        yield f"jpeg-empty-{name}-segments", behind_soi(_times(_segment(marker, b""), size))
    big = _segment(0xE1, bytes(65_533))
    yield "jpeg-large-segments", behind_soi(_times(big, size))
    yield "jpeg-fill-bytes", behind_soi(b"\xff" * size)
    yield "jpeg-fill-bytes-before-eoi", in_scan(b"\xff" * size)
    yield "jpeg-segment-of-length-0", behind_soi(_times(b"\xff\xe1\0\0", size))
    yield "jpeg-garbage-between-segments", behind_soi(_times(_segment(0xFE, b"") + bytes(12), size))
    yield "jpeg-garbage-behind-soi", behind_soi(bytes(size))
    yield "jpeg-soi-repeated", behind_soi(_times(b"\xff\xd8", size))
    yield "jpeg-frames-repeated", behind_soi(_times(plain[plain.index(b"\xff\xc0") :][:19], size))
    tables = plain[plain.index(b"\xff\xdb") : plain.index(b"\xff\xc0")]
    yield "jpeg-quantization-tables-repeated", behind_soi(_times(tables, size))
    huffman = plain[plain.index(b"\xff\xc4") : plain.index(b"\xff\xda")]
    yield "jpeg-huffman-tables-repeated", behind_soi(_times(huffman, size))

    yield "jpeg-scan-of-ff00", in_scan(_times(b"\xff\0", size))
    restarts = b"".join(bytes((0xFF, marker)) for marker in range(0xD0, 0xD8))
    yield "jpeg-scan-of-restart-markers", in_scan(_times(restarts, size))
    yield "jpeg-scan-of-same-restart-marker", in_scan(_times(b"\xff\xd3", size))
    yield "jpeg-scan-of-zeros", in_scan(bytes(size))
    yield "jpeg-scan-of-reserved-markers", in_scan(_times(b"\xff\x02", size))
    scan = plain[plain.index(b"\xff\xda") : -2]
    head = scan[:14]
    yield "jpeg-scan-headers-repeated", in_scan(_times(head, size))

    # Each scan has libjpeg pass over the coefficients of the whole frame once more.
    tiny = _segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + b"\0"
    for pixels, name in ((64, "64-pixels"), (BIG, "49-megapixels")):
        frame = _declaring(progressive, pixels, pixels)
        yield f"jpeg-scans-progressive-{name}", in_scan(_times(tiny, size), frame)
    frame = _declaring(progressive, BIG, BIG)
    yield "jpeg-300-scans-49-megapixels", in_scan(tiny * 300, frame)
    yield "jpeg-20-scans-49-megapixels", in_scan(tiny * 20, frame)
    yield "jpeg-tables-between-scans", in_scan(_times(huffman + tables + tiny, size), progressive)
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
            yield f"jpeg-exif-{name}-repeated", behind_soi(_times(one, size))
    for name, index in _picture_indexes():
        yield f"jpeg-mpf-{name}", behind_soi(_segment(0xE2, b"MPF\0" + index)) + plain
    profile = b"ICC_PROFILE\0" + bytes((1, 255)) + bytes(100)
    yield "jpeg-icc-same-part-repeated", behind_soi(_times(_segment(0xE2, profile), size))
    part = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", HUGE, 0)
    yield "jpeg-xmp-extension-of-4-gb", behind_soi(_times(_segment(0xE1, part + b"x"), size))
    yield "jpeg-of-jpegs", _times(plain, size)


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


# --- PNG ------------------------------------------------------------------------------------------

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
    plain = _saved(_picture(), "PNG")
    head, rest, end = plain[:33], plain[33:-12], plain[-12:]

    for kind in (b"tEXt", b"zTXt", b"iTXt", b"IDAT", b"eXIf", b"iCCP", b"sPLT", b"fdAT", b"prVt"):
        chunks = _times(_chunk(kind, b""), size)
        name = kind.decode().lower()
        yield f"png-empty-{name}-first", head + chunks + rest + end
        yield f"png-empty-{name}-last", head + rest + chunks + end
    yield "png-unknown-critical", head + _times(_chunk(b"QQQQ", b""), size) + rest + end
    yield "png-small-text", head + _times(_chunk(b"tEXt", b"k\0v"), size) + rest + end
    # A gigabyte or more each when unpacked.
    bomb = zeros_deflated(min(size * 900, 3 << 30))
    yield "png-ztxt-bomb", head + _chunk(b"zTXt", b"k\0\0" + bomb) + rest + end
    yield "png-itxt-bomb", head + _chunk(b"iTXt", b"k\0\1\0\0\0" + bomb) + rest + end
    yield "png-iccp-bomb", head + _chunk(b"iCCP", b"k\0\0" + bomb) + rest + end
    small = zeros_deflated(4 << 20)
    many = _times(_chunk(b"zTXt", b"k\0\0" + small), min(size, 4_000_000))
    yield "png-many-ztxt-bombs", head + many + rest + end
    yield "png-idat-bomb", head + _chunk(b"IDAT", bomb) + end
    entries = struct.pack("<2sHIH", b"II", 42, 8, 1000) + bytes(12 * 1000)
    yield "png-full-exif-blocks", head + _times(_chunk(b"eXIf", entries), size) + rest + end
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


# --- WebP and GIF ---------------------------------------------------------------------------------


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
    data = _saved(Image.new("RGB", (width, height)), "WEBP", lossless=True, quality=0, method=0)
    return data[12:]


def webps(size: int) -> Named:
    frame = _saved(_picture(), "WEBP")[12:]
    for name, chunk in (
        ("unknown", _riff_chunk(b"abcd", b"")),
        ("exif", _riff_chunk(b"EXIF", b"")),
    ):
        chunks = _times(chunk, size)
        yield f"webp-tiny-{name}-chunks-first", _riff(_canvas(64, 64, 8), chunks, frame)
        yield f"webp-tiny-{name}-chunks-last", _riff(_canvas(64, 64, 8), frame, chunks)
    yield "webp-frames-repeated", _riff(_canvas(64, 64), _times(frame, size))
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
    yield "webp-many-frames", _riff(_canvas(64, 64, 2), control, _times(one, size))
    empty = _riff_chunk(b"ANMF", place)
    yield "webp-many-empty-frames", _riff(_canvas(64, 64, 2), control, one, _times(empty, size))
    moving = _riff(_canvas(BIG, BIG, 2), control, one * 50)
    yield "webp-animated-canvas-49-megapixels", moving
    for name, block in exif_blocks(size):
        exif = _riff_chunk(b"EXIF", block)
        yield f"webp-exif-{name}", _riff(_canvas(64, 64, 8), frame, exif)


def _declaring_vp8(chunk: bytes, width: int, height: int) -> bytes:
    at = chunk.index(b"\x9d\x01\x2a") + 3
    return chunk[:at] + struct.pack("<HH", width, height) + chunk[at + 4 :]


def gifs(size: int) -> Named:
    plain = _saved(_picture().quantize(255), "GIF")
    colours = 13 + 3 * (2 << (plain[10] & 7))
    screen, at = plain[:colours], plain.index(b",", colours)
    frame = plain[at:-1]
    coded = frame[:11]  # descriptor and code size

    def sized(width: int, height: int, body: bytes) -> bytes:
        return screen[:6] + struct.pack("<HH", width, height) + screen[10:] + body + b";"

    def placed(width: int, height: int) -> bytes:
        return frame[:5] + struct.pack("<HH", width, height) + frame[9:]

    yield "gif-one-byte-sub-blocks", sized(64, 64, coded + _times(b"\x01\0", size) + b"\0")
    filler = frame[:-1] + _times(b"\x01\0", size) + b"\0"
    yield "gif-sub-blocks-behind-pixels", sized(64, 64, filler)
    clears = frame[:10] + b"\x02" + _times(b"\xff" + b"\x24" * 255, size) + b"\0"
    yield "gif-clear-codes", sized(64, 64, clears)
    comment = b"!\xfe" + b"\x01a" + b"\0"
    yield "gif-many-comments", sized(64, 64, _times(comment, size) + frame)
    yield "gif-many-empty-comments", sized(64, 64, _times(b"!\xfe\0", size) + frame)
    yield (
        "gif-comment-of-one-byte-blocks",
        sized(64, 64, b"!\xfe" + _times(b"\x01a", size) + b"\0" + frame),
    )
    control = b"!\xf9\x04\x01\0\0\0\0"
    yield "gif-many-controls", sized(64, 64, _times(control, size) + frame)
    yield "gif-many-unknown-extensions", sized(64, 64, _times(b"!\x77\0", size) + frame)
    yield "gif-screen-small-frame-huge", sized(1, 1, placed(65_535, 65_535))
    yield "gif-screen-huge-frame-small", sized(65_535, 65_535, frame)
    yield "gif-49-megapixels-declared", sized(BIG, BIG, placed(BIG, BIG))
    yield "gif-screen-49-megapixels", sized(BIG, BIG, frame)
    one = b",\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02\x44\x01\0"
    yield "gif-many-frames", sized(64, 64, _times(one, size))
    yield "gif-many-frames-49-megapixels", sized(BIG, BIG, one * 50)
    yield "gif-trailer-repeated", sized(64, 64, frame + _times(b";", size))
    yield "gif-zeros-before-frame", sized(64, 64, bytes(size) + frame)


# --- TIFF and BMP ---------------------------------------------------------------------------------


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
        yield f"{name}-end-of-lines", bitmap(BIG, BIG, bits, table + _times(b"\0\0", size), **more)
        yield f"{name}-jumps", bitmap(BIG, BIG, bits, table + _times(b"\0\2\0\0", size), **more)
        yield (
            f"{name}-far-jumps",
            bitmap(64, 64, bits, table + _times(b"\0\2\xff\xff", size), **more),
        )
        yield f"{name}-empty-runs", bitmap(64, 64, bits, table + _times(b"\0\3", size), **more)
        yield f"{name}-runs", bitmap(64, 64, bits, table + _times(b"\xff\x01", size), **more)
    yield "bmp-49-megapixels-declared", bitmap(BIG, BIG, 24, bytes(4096))
    yield "bmp-49-megapixels-1-bit", bitmap(BIG, BIG, 1, bytes(8) + bytes(876 * BIG), at=62)
    yield "bmp-header-of-2-32", b"BM" + bytes(8) + struct.pack("<II", 54, HUGE) + bytes(4096)


# --- AVIF and HEIC --------------------------------------------------------------------------------


def _box(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, data: bytes = b"", version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + data)


class _Coded:
    """One coded picture: its item type, decoder configuration box and bitstream."""

    def __init__(self, data: bytes, kind: bytes, configuration: bytes) -> None:
        self.kind = kind
        at = data.index(configuration) - 4
        self.configuration = data[at : at + struct.unpack_from(">I", data, at)[0]]
        at = data.index(b"mdat") - 4
        self.stream = data[at + 8 : at + struct.unpack_from(">I", data, at)[0]]


@cache
def _hevc(side: int) -> _Coded:
    out = io.BytesIO()
    image = pillow_heif.from_pillow(Image.new("RGB", (side, side), (90, 120, 30)))
    image.save(out, quality=10, enc_params={"preset": "ultrafast"})
    return _Coded(out.getvalue(), b"hvc1", b"hvcC")


@cache
def _av1(side: int) -> _Coded:
    data = _saved(Image.new("RGB", (side, side), (90, 120, 30)), "AVIF", speed=10, quality=10)
    return _Coded(data, b"av01", b"av1C")


def _ispe(width: int, height: int) -> bytes:
    return _full(b"ispe", struct.pack(">II", width, height))


def _heif(coded: _Coded, **parts: bytes) -> bytes:
    """One item by default; `parts` replace or, as `more`, follow the boxes inside `meta`. The
    bitstream comes first, at byte 36, so that its offset does not depend on them."""
    brand = b"avif" if coded.kind == b"av01" else b"heic"
    front = _box(b"ftyp", brand + bytes(4) + b"mif1" + brand + b"miaf") + _box(
        b"mdat", coded.stream
    )
    boxes = {
        "hdlr": _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
        "pitm": _full(b"pitm", struct.pack(">H", 1)),
        "iloc": _iloc([(1, 36, len(coded.stream))]),
        "iinf": _iinf([(1, coded.kind)]),
        "iref": b"",
        "iprp": _iprp([coded.configuration, _ispe(64, 64)], _ipma({1: (0x81, 2)})),
        "more": b"",
        **parts,
    }
    return front + _full(b"meta", b"".join(boxes.values()))


def _iloc(items: list[tuple[int, int, int]]) -> bytes:
    entries = b"".join(struct.pack(">HHHII", item, 0, 1, at, size) for item, at, size in items)
    return _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + entries)


def _infe(item: int, kind: bytes) -> bytes:
    return _full(b"infe", struct.pack(">HH4s", item, 0, kind) + b"\0", version=2)


def _iinf(items: list[tuple[int, bytes]]) -> bytes:
    entries = b"".join(_infe(*item) for item in items)
    return _full(b"iinf", struct.pack(">H", len(items)) + entries)


def _ipma(items: dict[int, tuple[int, ...]]) -> bytes:
    entries = b"".join(
        struct.pack(">HB", item, len(used)) + bytes(used) for item, used in items.items()
    )
    return _full(b"ipma", struct.pack(">I", len(items)) + entries)


def _iprp(properties: list[bytes], association: bytes) -> bytes:
    return _box(b"iprp", _box(b"ipco", b"".join(properties)) + association)


def _iref(kind: bytes, references: list[tuple[int, list[int]]]) -> bytes:
    boxes = (
        _box(kind, struct.pack(f">HH{len(to)}H", item, len(to), *to)) for item, to in references
    )
    return _full(b"iref", b"".join(boxes))


def isobmffs(size: int) -> Named:
    for name, coded in (("heic", _hevc(64)), ("avif", _av1(64))):
        for what, data in (*_box_files(size, coded), *_item_files(size, coded)):
            yield f"{name}-{what}", data
        properties = [coded.configuration, _ispe(64, 64)]
        for what, more in (
            ("empty-pitm-last", {"pitm": b"", "more": _box(b"pitm")}),
            ("empty-ipma-last", {"iprp": b"", "more": _iprp(properties, _box(b"ipma"))}),
            ("short-ipma-last", {"iprp": b"", "more": _iprp(properties, _box(b"ipma", bytes(3)))}),
            ("empty-iloc-last", {"iloc": b"", "more": _box(b"iloc")}),
        ):
            yield f"{name}-{what}", _heif(coded, **more)
        for kind in (b"irot", b"imir", b"av1C", b"clap", b"ispe"):
            used = _ipma({1: (0x81, 2, 3)})
            last = _box(b"ipco", b"".join([*properties, _box(kind)]))
            what = f"empty-{kind.decode().lower()}-last"
            yield f"{name}-{what}", _heif(coded, iprp=b"", more=_box(b"iprp", used + last))
    for name, large in (("heic", _hevc(8192)), ("avif", _av1(8192))):
        honest = [large.configuration, _ispe(8192, 8192)]
        yield f"{name}-67-megapixels", _heif(large, iprp=_iprp(honest, _ipma({1: (0x81, 2)})))
        yield f"{name}-small-ispe-8192-square-coded", _heif(large)


def _box_files(size: int, coded: _Coded) -> Named:
    """Hostile by the boxes alone."""
    whole = _heif(coded)
    front, meta = whole[: whole.rindex(b"meta") - 4], whole[whole.rindex(b"meta") - 4 :]
    for kind in (b"free", b"uuid", b"abcd", b"meta", b"mdat"):
        boxes = _times(_box(kind), size)
        yield f"empty-{kind.decode()}-boxes-first", front + boxes + meta
        yield f"empty-{kind.decode()}-boxes-in-meta", _heif(coded, more=boxes)
    yield "zero-size-boxes", front + _times(bytes(4) + b"free", size) + meta
    yield "zero-size-boxes-in-meta", _heif(coded, more=_times(bytes(4) + b"free", size))
    yield "box-of-size-1-and-2-63", front + struct.pack(">I4sQ", 1, b"free", 1 << 63) + meta
    yield "box-of-size-1-and-16", front + _times(struct.pack(">I4sQ", 1, b"free", 16), size) + meta
    yield "box-of-size-1-and-0", front + struct.pack(">I4sQ", 1, b"free", 0) + meta
    yield "box-of-size-4", front + struct.pack(">I4s", 4, b"free") + meta
    yield "box-of-size-2-32", front + struct.pack(">I4s", HUGE, b"free") + meta
    yield "brands-by-the-million", _box(b"ftyp", _times(b"heic", size)) + front[28:] + meta
    for kind in (b"iprp", b"moov", b"dinf", b"ipco", b"grpl"):
        nested = _nested(kind, min(100_000, size // 8))
        yield f"nested-{kind.decode()}", front + nested + meta
        yield f"nested-{kind.decode()}-in-meta", _heif(coded, more=nested)
    nested = _nested(b"meta", min(100_000, size // 12), full=True)
    yield "nested-meta", front + nested


def _nested(kind: bytes, depth: int, *, full: bool = False) -> bytes:
    step = 12 if full else 8
    heads = np.zeros(
        depth, np.dtype([("size", ">u4"), ("kind", "S4"), ("flags", "S4")][: 3 if full else 2])
    )
    heads["size"] = np.arange(depth, 0, -1) * step
    heads["kind"] = kind
    return heads.tobytes()


def _item_files(size: int, coded: _Coded) -> Named:
    """Hostile by items, properties and references."""
    properties = [coded.configuration, _ispe(64, 64)]
    count = min(0xFFFF, size // 21)
    items = [(number, coded.kind) for number in range(1, count + 1)]
    yield "65535-items", _heif(coded, iinf=_iinf(items))
    spread = [(number, 36, len(coded.stream)) for number in range(1, count + 1)]
    every = _ipma({number: (0x81, 2) for number in range(1, count + 1)})
    usable = {"iinf": _iinf(items), "iloc": _iloc(spread), "iprp": _iprp(properties, every)}
    yield "65535-usable-items", _heif(coded, **usable)
    infe = _infe(1, coded.kind)
    more = max(1, size // len(infe))
    body = struct.pack(">I", more) + infe * more
    yield "same-item-by-the-million", _heif(coded, iinf=_full(b"iinf", body, version=1))
    lying = _full(b"iinf", struct.pack(">I", HUGE) + infe, version=1)
    yield "2-32-items-declared", _heif(coded, iinf=lying)
    entry = struct.pack(">IHHHII", 1, 0, 0, 1, 36, len(coded.stream))
    body = struct.pack(">BBI", 0x44, 0, size // len(entry)) + _times(entry, size)
    yield "locations-by-the-million", _heif(coded, iloc=_full(b"iloc", body, version=2))
    extents = struct.pack(">II", 36, len(coded.stream)) * min(0xFFFF, size // 8)
    body = struct.pack(">BBHHHH", 0x44, 0, 1, 1, 0, len(extents) // 8) + extents
    yield "65535-extents-of-one-item", _heif(coded, iloc=_full(b"iloc", body))
    empty = bytes(8) * min(0xFFFF, size // 8)
    body = struct.pack(">BBHHHH", 0x44, 0, 1, 1, 0, len(empty) // 8) + empty
    yield "65535-empty-extents", _heif(coded, iloc=_full(b"iloc", body))
    yield "location-outside", _heif(coded, iloc=_iloc([(1, 1 << 31, 1 << 31)]))
    many = [*properties, _times(_box(b"free"), size)]
    yield "properties-by-the-million", _heif(coded, iprp=_iprp(many, _ipma({1: (0x81, 2)})))
    one = struct.pack(">HBBB", 1, 2, 0x81, 2)
    body = struct.pack(">I", size // len(one)) + _times(one, size)
    same = _iprp(properties, _full(b"ipma", body))
    yield "associations-by-the-million", _heif(coded, iprp=same)
    lying = _full(b"ipma", struct.pack(">I", HUGE) + one)
    yield "2-32-associations-declared", _heif(coded, iprp=_iprp(properties, lying))
    boxes = _times(_full(b"ipma", struct.pack(">I", 1) + one), size)
    yield "association-boxes-by-the-million", _heif(coded, iprp=_iprp(properties, boxes))

    turns: dict[str, bytes] = {
        "irot": _box(b"irot", b"\1"),
        "imir": _box(b"imir", b"\0"),
        "clap": _box(b"clap", struct.pack(">8I", 64, 1, 64, 1, 0, 1, 0, 1)),
        "unknown-essential": _box(b"zzzz"),
    }
    for name, turn in turns.items():
        used = (0x81, 2, *(0x83,) * 250)
        data = _heif(coded, iprp=_iprp([*properties, turn], _ipma({1: used})))
        yield f"{name}-250-times", data
    crop = _box(b"clap", struct.pack(">8I", HUGE, 1, HUGE, 0, HUGE, 0, HUGE, 0))
    yield "clap-lies", _heif(coded, iprp=_iprp([*properties, crop], _ipma({1: (0x81, 2, 0x83)})))
    for width, height in ((BIG, BIG), (HUGE, HUGE), (1, 1), (0, 0)):
        lying = _iprp([coded.configuration, _ispe(width, height)], _ipma({1: (0x81, 2)}))
        yield f"ispe-{width}-by-{height}-for-64-pixels", _heif(coded, iprp=lying)
    yield "no-ispe", _heif(coded, iprp=_iprp([coded.configuration], _ipma({1: (0x81,)})))
    yield "no-primary", _heif(coded, pitm=_full(b"pitm", struct.pack(">H", 77)))

    yield from _derived_files(coded, properties)


def _derived_files(coded: _Coded, properties: list[bytes]) -> Named:
    """Grids, overlays and references that run in circles."""

    def derived(kind: bytes, sources: dict[int, list[int]], grid: bytes, side: int) -> bytes:
        """Items 1..n of `kind` made from `sources`, all with the same description `grid`; item
        60000 is the coded picture. The description lies in `idat`."""
        numbers = sorted(sources)
        items = [(number, kind) for number in numbers] + [(60_000, coded.kind)]
        places = b"".join(
            struct.pack(">HHHHII", number, 1, 0, 1, 0, len(grid)) for number in numbers
        )
        places += struct.pack(">HHHHII", 60_000, 0, 0, 1, 36, len(coded.stream))
        iloc = _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + places, version=1)
        used: dict[int, tuple[int, ...]] = {number: (3,) for number in numbers}
        used[60_000] = (0x81, 2)
        return _heif(
            coded,
            iloc=iloc,
            iinf=_iinf(items),
            iref=_iref(b"dimg", list(sources.items())),
            iprp=_iprp([*properties, _ispe(side, side)], _ipma(used)),
            more=_box(b"idat", grid),
        )

    def grid(rows: int, columns: int, width: int, height: int) -> bytes:
        return struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)

    one = grid(1, 1, 64, 64)
    yield "item-derived-from-itself", derived(b"grid", {1: [1]}, one, 64)
    yield "items-derived-in-a-circle", derived(b"grid", {1: [2], 2: [3], 3: [1]}, one, 64)
    yield "identity-of-itself", derived(b"iden", {1: [1]}, b"", 64)
    chain = {number: [number + 1] for number in range(1, 5_000)}
    chain[5_000] = [60_000]
    yield "identity-chain-of-5000", derived(b"iden", chain, b"", 64)
    yield "grid-chain-of-5000", derived(b"grid", chain, one, 64)
    # Two tiles a level, each again of two tiles: 2^25 decodings.
    double = {number: [number + 1] * 2 for number in range(1, 25)}
    double[25] = [60_000, 60_000]
    yield "identity-doubling", derived(b"iovl", double, _overlay(2, 64), 64)
    yield "grid-doubling", derived(b"grid", double, grid(1, 2, 64, 64), 64)
    tiles = [60_000] * 65_535
    yield (
        "grid-of-256-by-255",
        derived(b"grid", {1: tiles[: 256 * 255]}, grid(255, 256, 16_384, 16_320), 16_384),
    )
    yield (
        "grid-of-100-by-100",
        derived(b"grid", {1: tiles[:10_000]}, grid(100, 100, 6_400, 6_400), 6_400),
    )
    yield (
        "grid-of-256-by-255-for-64-pixels",
        derived(b"grid", {1: tiles[: 256 * 255]}, grid(255, 256, 64, 64), 64),
    )
    yield "grid-larger-than-ispe", derived(b"grid", {1: [60_000]}, grid(1, 1, BIG, BIG), 64)
    wide = struct.pack(">BBBBII", 0, 1, 0, 0, HUGE, HUGE)
    yield "grid-of-2-32-pixels", derived(b"grid", {1: [60_000]}, wide, 64)
    yield "overlay-of-20000", derived(b"iovl", {1: tiles[:20_000]}, _overlay(20_000, 64), 64)
    yield "overlay-canvas-49-megapixels", derived(b"iovl", {1: [60_000]}, _overlay(1, BIG), 64)
    circle = _iref(b"auxl", [(1, [1])]) + _iref(b"thmb", [(1, [1])])
    yield "auxiliary-of-itself", _heif(coded, iref=circle)
    flood = _full(b"iref", _box(b"cdsc", struct.pack(">HHH", 1, 1, 1)) * 200_000)
    yield "200000-references", _heif(coded, iref=flood)


def _overlay(count: int, side: int) -> bytes:
    return struct.pack(">BB4HII", 0, 1, 0, 0, 0, 0xFFFF, side, side) + bytes(8) * count
