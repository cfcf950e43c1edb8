"""Makes PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from tests.support.camera_files.base import (
    RDF,
    CameraFile,
    Pixels,
    Transpose,
    by_opencv,
    exif_of,
    icc,
    maker,
    on_white,
    rgb_of,
    stored,
    with_alpha,
)
from tests.support.images import encoded


def pngs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)
    made = maker("png", pixels)
    plain = encoded(picture, "PNG")
    yield made("rgb", plain)
    noise = np.random.default_rng(1).integers(160, 256, pixels.shape, np.uint8)
    yield made("noise-fixed-huffman", _fixed_huffman(noise), noise)
    grey = picture.convert("L")
    bilevel = picture.convert("1")
    yield made("grey-1", encoded(bilevel, "PNG"), rgb_of(bilevel))
    for bits in (2, 4):
        levels = (1 << bits) - 1
        few = np.round(np.asarray(grey) / 255 * levels).astype(np.uint8)
        shown = rgb_of(Image.fromarray(few * np.uint8(255 // levels)))
        yield made(f"grey-{bits}", adam7(few, bits, 0, interlaced=False), shown)
        yield made(f"grey-{bits}-interlaced", adam7(few, bits, 0), shown)
    yield made("grey-8", encoded(grey, "PNG"), rgb_of(grey))
    wide = np.asarray(grey).astype(np.uint16) * 257
    yield made("grey-16", encoded(Image.fromarray(wide), "PNG"), rgb_of(grey))
    for bits in (1, 2, 4, 8):
        indexed = picture.quantize(1 << bits)
        yield made(f"palette-{bits}", encoded(indexed, "PNG", bits=bits), rgb_of(indexed))
    indexed = picture.quantize(255)
    clear = encoded(indexed, "PNG", transparency=0)
    shown = rgb_of(indexed).copy()
    shown[np.asarray(indexed) == 0] = 255
    yield made("palette-trns", clear, shown, has_alpha=True)
    see_through, flat = with_alpha(picture)
    yield made("rgba", encoded(see_through, "PNG"), flat, has_alpha=True, tolerance=1.0)
    shaded = see_through.convert("LA")
    yield made(
        "grey-alpha", encoded(shaded, "PNG"), on_white(shaded), has_alpha=True, tolerance=1.0
    )
    rgb_key = tuple(int(value) for value in pixels[0, 0])
    keyed = pixels.copy()
    keyed[(pixels == pixels[0, 0]).all(axis=2)] = 255
    yield made("rgb-trns", encoded(picture, "PNG", transparency=rgb_key), keyed, has_alpha=True)
    key = int(np.asarray(grey)[0, 0])
    keyed = rgb_of(grey).copy()
    keyed[np.asarray(grey) == key] = 255
    yield made("grey-trns", encoded(grey, "PNG", transparency=key), keyed, has_alpha=True)
    yield made("rgb-16", by_opencv(".png", picture, deep=True))
    data = by_opencv(".png", see_through, deep=True)
    yield made("rgba-16", data, flat, has_alpha=True, tolerance=1.0)
    yield made("rgb-interlaced", adam7(pixels, 8, 2))
    alpha = np.asarray(see_through)
    yield made("rgba-interlaced", adam7(alpha, 8, 6), flat, has_alpha=True, tolerance=1.0)
    deep = (pixels.astype(np.uint16) * 257).astype(">u2").view(np.uint8)
    yield made("rgb-16-interlaced", adam7(deep.reshape(*pixels.shape[:2], 6), 16, 2))

    for orientation in range(1, 9):
        data = encoded(stored(picture, orientation), "PNG", exif=exif_of(orientation)[6:])
        yield made(f"exif-{orientation}", data, orientation=orientation)
    turned = encoded(stored(picture, 6), "PNG")
    late = turned[:-12] + png_chunk(b"eXIf", exif_of(6)[6:]) + turned[-12:]
    yield made("exif-6-behind-pixels", late, orientation=6)
    other = picture.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other], "duration": 100}
    yield made("apng", encoded(picture, "PNG", **moving), animated=True)
    hidden = encoded(picture, "PNG", **moving, default_image=True)
    yield made("apng-default-image", hidden, animated=True)
    yield made("screenshot-iphone", _screenshot(picture))
    yield made("text-compressed", encoded(picture, "PNG", pnginfo=_texts()))
    yield made("many-idat", _in_small_idats(plain))
    yield made("trailing-bytes", plain + b"\0" * 700 + b"IEND")


def adam7(samples: Pixels, bits: int, colour: int, *, interlaced: bool = True) -> bytes:
    """PNG of H x W or H x W x bytes `samples`, one of them a byte where `bits` is below 8."""
    height, width = samples.shape[:2]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    rows = bytearray()
    for left, top, right, down in (*passes, (0, 1, 1, 2)) if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::right]
        for row in part if part.size else ():
            rows += b"\0" + packed(row, bits)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    chunks = (png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(bytes(rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def packed(row: Pixels, bits: int) -> bytes:
    if bits >= 8:
        return row.tobytes()
    ones = (row[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(ones.astype(np.uint8).ravel()).tobytes()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _fixed_huffman(samples: Pixels) -> bytes:
    """RGB, by a deflate that knows no other codes and no stored blocks: noise becomes longer."""
    height, width = samples.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), samples.reshape(height, -1)], axis=1)
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FIXED)
    data = packer.compress(rows.tobytes()) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _screenshot(picture: Image.Image) -> bytes:
    """RGBA without transparency, a colour profile, EXIF, XMP and Apple's own chunk."""
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", (RDF % b'xmlns:a="a" a:UserComment="Screenshot"').decode())
    data = encoded(
        picture.convert("RGBA"),
        "PNG",
        icc_profile=icc(),
        exif=exif_of(1)[6:],
        pnginfo=texts,
    )
    at = data.index(b"IDAT") - 4
    own = struct.pack(">7I", 2, 0, picture.height // 2, 40, picture.height // 2, 0, 0)
    return data[:at] + png_chunk(b"iDOT", own) + data[at:]


def _texts() -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "scanned " * 500, zip=True)
    texts.add_text("Software", "a scanner")
    texts.add_itxt("Title", "Ünïcode", zip=True)
    return texts


def _in_small_idats(png: bytes) -> bytes:
    """The coded pixels in chunks of 512 bytes."""
    at = png.index(b"IDAT") - 4
    pixels = bytearray()
    while png[at + 4 : at + 8] == b"IDAT":
        size = struct.unpack_from(">I", png, at)[0]
        pixels += png[at + 8 : at + 8 + size]
        at += size + 12
    parts = (bytes(pixels[start : start + 512]) for start in range(0, len(pixels), 512))
    chunks = b"".join(png_chunk(b"IDAT", part) for part in parts)
    return png[: png.index(b"IDAT") - 4] + chunks + png[at:]
