"""Pictures as telephones, cameras, scanners and desktop programs store them, all showing the same.

Libraries write them where one can; structures that no library here writes (Adam7, tiled TIFF,
Ultra HDR, RLE bitmaps, ...) are put together by hand around a library's coded picture.
"""

from __future__ import annotations

import io
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

Pixels = NDArray[np.uint8]
Transpose = Image.Transpose

# What turns the upright picture into the stored one, by EXIF orientation.
STORED: dict[int, Transpose] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
LOSSY = 12.0
"""Mean absolute difference per channel, of 255, that a lossy codec may add to a photograph."""
XMP = b"http://ns.adobe.com/xap/1.0/\0"
RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"<rdf:Description %s/></rdf:RDF></x:xmpmeta>"
)


@dataclass(frozen=True, slots=True)
class CameraFile:
    """`pixels`: H x W x 3, RGB, upright, transparent parts on white. `orientation`: what EXIF, a
    TIFF tag or irot/imir say, 1-8; the stored picture has its sides swapped from 5 on.
    `tolerance`: mean absolute difference from `pixels` to allow."""

    name: str
    data: bytes
    content_type: str
    pixels: Pixels
    tolerance: float = 0.0
    orientation: int = 1
    has_alpha: bool = False
    animated: bool = False

    @property
    def lossy(self) -> bool:
        return self.tolerance > 2

    @property
    def stored_size(self) -> tuple[int, int]:
        height, width = self.pixels.shape[:2]
        return (width, height) if self.orientation < 5 else (height, width)


def camera_files(picture: Image.Image) -> Iterator[CameraFile]:
    """Every kind of file, one after the other, showing `picture` upright.

    The picture should have an even width and height of at least 64 pixels.
    """
    picture = picture.convert("RGB")
    for of_a_format in (jpegs, pngs, webps, gifs, tiffs, bmps, avifs, heics):
        yield from of_a_format(picture)


def stored(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture as a sensor held that way reads it."""
    return picture.transpose(STORED[orientation]) if orientation in STORED else picture


# --- JPEG ---------------------------------------------------------------------------------------


def jpegs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, **more: object) -> CameraFile:
        options = {"pixels": pixels, "tolerance": LOSSY, **more}
        return CameraFile(f"jpeg-{name}", data, "image/jpeg", **options)  # type: ignore[arg-type]

    plain = _saved(picture, "JPEG")
    yield made("baseline", plain)
    yield made("progressive", _saved(picture, "JPEG", progressive=True))
    for ratio in ("4:4:4", "4:2:2", "4:2:0"):
        yield made(ratio.replace(":", ""), _saved(picture, "JPEG", subsampling=ratio))
    for ratio in ("411", "440"):
        sampling = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{ratio}")
        data = _by_opencv(".jpg", picture, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
        yield made(f"{ratio}-opencv", data)
    yield made("optimized", _saved(picture, "JPEG", optimize=True))
    yield made("restart-blocks", _saved(picture, "JPEG", restart_marker_blocks=3))
    yield made("restart-rows-progressive", _restarting(picture))
    yield made("rgb", _saved(picture, "JPEG", keep_rgb=True))
    grey = picture.convert("L")
    yield made("grey", _saved(grey, "JPEG"), pixels=_rgb(grey))
    cmyk = picture.convert("CMYK")
    yield made("cmyk", _saved(cmyk, "JPEG"))
    yield made("cmyk-progressive", _saved(cmyk, "JPEG", progressive=True))
    yield made("ycck", _ycck(cmyk))

    for orientation in range(1, 9):
        data = _saved(stored(picture, orientation), "JPEG", exif=_exif(orientation))
        yield made(f"exif-{orientation}", data, orientation=orientation)
    for order in "<>":
        exif = exif_with_thumbnail(picture, order, orientation=6)
        data = _saved(stored(picture, 6), "JPEG", exif=exif)
        ending = "intel" if order == "<" else "motorola"
        yield made(f"exif-thumbnail-{ending}", data, orientation=6)
    yield made("icc", _saved(picture, "JPEG", icc_profile=_profile()))
    yield made("icc-300-kb", _saved(picture, "JPEG", icc_profile=_profile(300_000)))
    yield made("xmp", _saved(picture, "JPEG", xmp=RDF % b'xmlns:a="a" a:b="c"'))
    yield made("xmp-extended", with_segments(plain, _extended_xmp(40)))
    yield made("comment", _saved(picture, "JPEG", comment=b"made by a scanner" * 100))
    yield made("many-comments", with_segments(plain, _segment(0xFE, b"line") * 40))
    yield made("photoshop", with_segments(plain, _photoshop(picture)))
    yield made("fill-bytes", with_fill_bytes(plain))
    yield made("fill-bytes-progressive", with_fill_bytes(_saved(picture, "JPEG", progressive=True)))
    yield from (made(name, data) for name, data in _several_in_one(picture, plain))
    yield from (made(name, plain + trailer) for name, trailer in _trailers(picture))
    rotated = _saved(stored(picture, 6), "JPEG", exif=_exif(6))
    yield made("exif-6-motion", rotated + movie(), orientation=6)


def _restarting(picture: Image.Image) -> bytes:
    return _saved(picture, "JPEG", restart_marker_rows=1, progressive=True)


def _ycck(cmyk: Image.Image) -> bytes:
    """Adobe's YCCK: Pillow writes four channels as they are, so hand it converted ones and say in
    the Adobe segment that they are."""
    cyan, magenta, yellow, black = cmyk.split()
    inks = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    turned = [channel.point(lambda value: 255 - value) for channel in inks.split()]
    data = _saved(Image.merge("CMYK", (*turned, black)), "JPEG")
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def _several_in_one(picture: Image.Image, plain: bytes) -> Iterator[tuple[str, bytes]]:
    """Multi-Picture Format and its users."""
    other = picture.transpose(Transpose.ROTATE_180)
    yield "mpo", _saved(picture, "MPO", save_all=True, append_images=[other])
    yield "mpo-three", _saved(picture, "MPO", save_all=True, append_images=[other, other])
    gain = picture.convert("L").reduce(2)
    yield "ultra-hdr-android", _ultra_hdr(plain, _saved(gain, "JPEG"))
    yield "hdr-iphone", _iphone_hdr(plain, _saved(gain, "JPEG"))


def _ultra_hdr(primary: bytes, gain: bytes) -> bytes:
    version = b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
    iso = _segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))
    about = RDF % (version + b' hdrgm:GainMapMax="2.3" hdrgm:Gamma="1"')
    gain = with_segments(gain, _segment(0xE1, XMP + about) + iso)
    described = RDF.replace(
        b"/></rdf:RDF>",
        b"><Container:Directory><rdf:Seq>"
        b'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" '
        b'Item:Mime="image/jpeg"/></rdf:li><rdf:li rdf:parseType="Resource"><Container:Item '
        b'Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="%d"/></rdf:li>'
        b"</rdf:Seq></Container:Directory></rdf:Description></rdf:RDF>",
    ) % (
        version + b' xmlns:Container="http://ns.google.com/photos/1.0/container/"'
        b' xmlns:Item="http://ns.google.com/photos/1.0/container/item/"',
        len(gain),
    )
    before = _segment(0xE1, XMP + described) + iso
    return _multi_picture(primary, gain, before, order=">")


def _iphone_hdr(primary: bytes, gain: bytes) -> bytes:
    about = RDF % (
        b'xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion='
        b'"65536" xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/" apdi:AuxiliaryImageType='
        b'"urn:com:apple:photo:2020:aux:hdrgainmap"'
    )
    gain = with_segments(gain, _segment(0xE1, XMP + about))
    return _multi_picture(primary, gain, _segment(0xE1, _exif(1)), order=">")


def _multi_picture(primary: bytes, second: bytes, before: bytes, order: str) -> bytes:
    """Two JPEGs in one file, with the index (CIPA DC-007) behind the segments `before`."""

    def index(sizes: tuple[int, int], offset: int) -> bytes:
        entries = struct.pack(f"{order}IIIHH", 0x030000, sizes[0], 0, 0, 0)
        entries += struct.pack(f"{order}IIIHH", 0, sizes[1], offset, 0, 0)
        tags = {0xB000: (7, b"0100"), 0xB001: (4, (2,)), 0xB002: (7, entries)}
        return _segment(0xE2, b"MPF\0" + _tiff_header(order) + _ifd(tags, order, 8))

    size = len(primary) + len(before) + len(index((0, 0), 0))
    base = 2 + len(before) + 8  # offsets count from the byte order mark behind "MPF\0"
    whole = before + index((size, len(second)), size - base)
    return with_segments(primary, whole) + second


def _trailers(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What programs append to a finished JPEG."""
    mp4 = movie()
    yield "motion-micro-video", mp4
    size = len(mp4)
    head = struct.pack("<HHII", 0, 0x0A30, size + 24, size + 24)
    directory = b"SEFH" + struct.pack("<II", 107, 1) + head
    block = struct.pack("<HHI", 0, 0x0A30, 16) + b"MotionPhoto_Data"
    yield "motion-samsung", block + mp4 + directory + struct.pack("<I", len(directory)) + b"SEFT"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("notes.txt", "as some programs hide it")
    yield "zip", archive.getvalue()
    for count in (1, 3, 4096, 100_000):
        yield f"zeros-{count}", bytes(count)
    yield "newline", b"\r\n"
    yield "ff-padding", b"\xff" * 512
    second = _saved(picture.reduce(2), "JPEG")
    yield "second-jpeg", second
    yield "second-jpeg-cut", second[: len(second) // 2]
    yield "second-jpeg-header-only", second[:300]
    for seed in range(4):
        yield f"random-{seed}", random.Random(seed).randbytes(5_000)
    for seed in range(4):
        source = random.Random(seed)
        markers = [b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xd8\xff", b"\xff\xc0", b"\xff\x00"]
        parts = (source.choice(markers) + source.randbytes(source.randrange(40)) for _ in range(90))
        yield f"random-markers-{seed}", b"".join(parts)


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """The JPEG with more marker segments right behind its SOI."""
    return jpeg[:2] + segments + jpeg[2:]


def with_fill_bytes(jpeg: bytes) -> bytes:
    """FF bytes before each marker, as T.81 B.1.1.2 allows."""
    out = bytearray(jpeg[:2])
    at = 2
    while True:
        marker = jpeg[at + 1]
        size = 2
        if marker != 0xD9:
            size += struct.unpack_from(">H", jpeg, at + 2)[0]
        out += b"\xff\xff\xff" + jpeg[at : at + size]
        at += size
        if marker == 0xD9:
            return bytes(out) + jpeg[at:]
        if marker == 0xDA:
            end = at
            while jpeg[end] != 0xFF or jpeg[end + 1] == 0 or 0xD0 <= jpeg[end + 1] <= 0xD7:
                end += 1
            out += jpeg[at:end]
            at = end


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _extended_xmp(count: int) -> bytes:
    """A depth map or so, base64 in XMP, cut into APP1 segments of 64 KB."""
    guid = b"0123456789ABCDEF0123456789ABCDEF"
    note = b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="' + guid + b'"'
    out = [_segment(0xE1, XMP + RDF % note)]
    part = b"QUJD" * 16_000
    for number in range(count):
        place = struct.pack(">II", count * len(part), number * len(part))
        out.append(_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + guid + place + part))
    return b"".join(out)


def _photoshop(picture: Image.Image) -> bytes:
    """APP13 with a thumbnail, itself a JPEG, and text."""
    thumbnail = _saved(picture.resize((64, 48)), "JPEG")
    body = struct.pack(">IIIIIIHH", 1, 64, 48, 192, 9216, len(thumbnail), 24, 1) + thumbnail
    block = b"8BIM" + struct.pack(">HHI", 1036, 0, len(body)) + body + bytes(len(body) % 2)
    return _segment(0xED, b"Photoshop 3.0\0" + block)


# --- PNG ----------------------------------------------------------------------------------------


def pngs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, expected: Pixels = pixels, **more: object) -> CameraFile:
        return CameraFile(f"png-{name}", data, "image/png", expected, **more)  # type: ignore[arg-type]

    plain = _saved(picture, "PNG")
    yield made("rgb", plain)
    noise = np.random.default_rng(1).integers(160, 256, pixels.shape, np.uint8)
    yield made("noise-fixed-huffman", _fixed_huffman(noise), noise)
    grey = picture.convert("L")
    bilevel = picture.convert("1")
    yield made("grey-1", _saved(bilevel, "PNG"), _rgb(bilevel))
    for bits in (2, 4):
        levels = (1 << bits) - 1
        few = np.round(np.asarray(grey) / 255 * levels).astype(np.uint8)
        shown = _rgb(Image.fromarray(few * np.uint8(255 // levels)))
        yield made(f"grey-{bits}", adam7(few, bits, 0, interlaced=False), shown)
        yield made(f"grey-{bits}-interlaced", adam7(few, bits, 0), shown)
    yield made("grey-8", _saved(grey, "PNG"), _rgb(grey))
    wide = np.asarray(grey).astype(np.uint16) * 257
    yield made("grey-16", _saved(Image.fromarray(wide), "PNG"), _rgb(grey))
    for bits in (1, 2, 4, 8):
        indexed = picture.quantize(1 << bits)
        yield made(f"palette-{bits}", _saved(indexed, "PNG", bits=bits), _rgb(indexed))
    indexed = picture.quantize(255)
    clear = _saved(indexed, "PNG", transparency=0)
    shown = _rgb(indexed).copy()
    shown[np.asarray(indexed) == 0] = 255
    yield made("palette-trns", clear, shown, has_alpha=True)
    see_through, flat = _with_alpha(picture)
    yield made("rgba", _saved(see_through, "PNG"), flat, has_alpha=True, tolerance=1.0)
    shaded = see_through.convert("LA")
    yield made("grey-alpha", _saved(shaded, "PNG"), _flat(shaded), has_alpha=True, tolerance=1.0)
    rgb_key = tuple(int(value) for value in pixels[0, 0])
    keyed = pixels.copy()
    keyed[(pixels == pixels[0, 0]).all(axis=2)] = 255
    yield made("rgb-trns", _saved(picture, "PNG", transparency=rgb_key), keyed, has_alpha=True)
    key = int(np.asarray(grey)[0, 0])
    keyed = _rgb(grey).copy()
    keyed[np.asarray(grey) == key] = 255
    yield made("grey-trns", _saved(grey, "PNG", transparency=key), keyed, has_alpha=True)
    yield made("rgb-16", _by_opencv(".png", picture, deep=True))
    data = _by_opencv(".png", see_through, deep=True)
    yield made("rgba-16", data, flat, has_alpha=True, tolerance=1.0)
    yield made("rgb-interlaced", adam7(pixels, 8, 2))
    alpha = np.asarray(see_through)
    yield made("rgba-interlaced", adam7(alpha, 8, 6), flat, has_alpha=True, tolerance=1.0)
    deep = (pixels.astype(np.uint16) * 257).astype(">u2").view(np.uint8)
    yield made("rgb-16-interlaced", adam7(deep.reshape(*pixels.shape[:2], 6), 16, 2))

    for orientation in range(1, 9):
        data = _saved(stored(picture, orientation), "PNG", exif=_exif(orientation)[6:])
        yield made(f"exif-{orientation}", data, orientation=orientation)
    turned = _saved(stored(picture, 6), "PNG")
    late = turned[:-12] + png_chunk(b"eXIf", _exif(6)[6:]) + turned[-12:]
    yield made("exif-6-behind-pixels", late, orientation=6)
    other = picture.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other], "duration": 100}
    yield made("apng", _saved(picture, "PNG", **moving), animated=True)
    hidden = _saved(picture, "PNG", **moving, default_image=True)
    yield made("apng-default-image", hidden, animated=True)
    yield made("screenshot-iphone", _screenshot(picture))
    yield made("text-compressed", _saved(picture, "PNG", pnginfo=_texts()))
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
            rows += b"\0" + _packed(row, bits)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    chunks = (png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(bytes(rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def _packed(row: Pixels, bits: int) -> bytes:
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
    data = _saved(
        picture.convert("RGBA"), "PNG", icc_profile=_profile(), exif=_exif(1)[6:], pnginfo=texts
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


# --- WebP and GIF -------------------------------------------------------------------------------


def webps(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, **more: object) -> CameraFile:
        options = {"pixels": pixels, "tolerance": LOSSY, **more}
        return CameraFile(f"webp-{name}", data, "image/webp", **options)  # type: ignore[arg-type]

    plain = _saved(picture, "WEBP")
    yield made("lossy", plain)
    yield made("lossless", _saved(picture, "WEBP", lossless=True), tolerance=0.0)
    see_through, flat = _with_alpha(picture)
    yield made("lossy-alpha", _saved(see_through, "WEBP"), pixels=flat, has_alpha=True)
    data = _saved(see_through, "WEBP", lossless=True)
    yield made("lossless-alpha", data, pixels=flat, has_alpha=True, tolerance=1.0)
    yield made("icc-xmp", _saved(picture, "WEBP", icc_profile=_profile(), xmp=RDF % b'a="b"'))
    for orientation in range(1, 9):
        data = _saved(stored(picture, orientation), "WEBP", exif=_exif(orientation))
        yield made(f"exif-{orientation}", data, orientation=orientation)
    bare = _saved(stored(picture, 6), "WEBP", exif=_exif(6)[6:])
    yield made("exif-6-without-prefix", bare, orientation=6)
    other = picture.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other, picture], "duration": 100}
    yield made("animated", _saved(picture, "WEBP", **moving), animated=True)
    yield made("animated-lossless", _saved(picture, "WEBP", lossless=True, **moving), animated=True)
    data = _saved(see_through, "WEBP", **moving)
    yield made("animated-alpha", data, pixels=flat, has_alpha=True, animated=True)
    yield made("trailing-bytes", plain + bytes(100))


def gifs(picture: Image.Image) -> Iterator[CameraFile]:
    indexed = picture.quantize(255)
    pixels = _rgb(indexed)

    def made(name: str, data: bytes, **more: object) -> CameraFile:
        options = {"pixels": pixels, **more}
        return CameraFile(f"gif-{name}", data, "image/gif", **options)  # type: ignore[arg-type]

    plain = _saved(indexed, "GIF", interlace=0)
    yield made("plain", plain)
    yield made("interlaced", _saved(indexed, "GIF", interlace=1))
    grey = picture.convert("L")
    yield made("grey", _saved(grey, "GIF"), pixels=_rgb(grey))
    # Pillow writes a transparent pixel only where a mask leaves one.
    clear = pixels.copy()
    clear[np.asarray(indexed) == 0] = 255
    data = _saved(indexed, "GIF", transparency=0, optimize=False)
    yield made("transparent", data, pixels=clear, has_alpha=True)
    other = indexed.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other], "duration": 100, "loop": 0}
    yield made("animated", _saved(indexed, "GIF", **moving), animated=True)
    yield made("opencv", _by_opencv(".gif", picture), pixels=np.asarray(picture), tolerance=24.0)
    yield made("comment", _saved(indexed, "GIF", comment=b"words " * 200))
    yield made("trailing-bytes", plain + bytes(100))


# --- TIFF ---------------------------------------------------------------------------------------


def tiffs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, expected: Pixels = pixels, **more: object) -> CameraFile:
        return CameraFile(f"tiff-{name}", data, "image/tiff", expected, **more)  # type: ignore[arg-type]

    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"):
        data = _saved(picture, "TIFF", compression=name)
        yield made(name.replace("tiff_", "").replace("raw", "uncompressed"), data)
    yield made("jpeg", _saved(picture, "TIFF", compression="jpeg", quality=90), tolerance=LOSSY)
    grey = picture.convert("L")
    yield made("grey", _saved(grey, "TIFF"), _rgb(grey))
    indexed = picture.quantize(255)
    yield made("palette", _saved(indexed, "TIFF"), _rgb(indexed))
    bilevel = picture.convert("1")
    for name in ("raw", "group3", "group4", "packbits"):
        yield made(f"bilevel-{name}", _saved(bilevel, "TIFF", compression=name), _rgb(bilevel))
    cmyk = picture.convert("CMYK")
    yield made("cmyk", _saved(cmyk, "TIFF"), tolerance=2.0)
    see_through, flat = _with_alpha(picture)
    yield made("rgba", _saved(see_through, "TIFF"), flat, has_alpha=True, tolerance=1.0)
    wide = np.asarray(grey).astype(np.uint16) * 257
    yield made("grey-16", _saved(Image.fromarray(wide), "TIFF"), _rgb(grey))
    yield made("rgb-16-opencv", _by_opencv(".tiff", picture, deep=True))
    yield made("rgb-float-opencv", _by_opencv(".tiff", picture, floating=True))
    other = picture.transpose(Transpose.ROTATE_180)
    data = _saved(picture, "TIFF", save_all=True, append_images=[other, other])
    yield made("pages", data)
    yield made("big-tiff", _saved(picture, "TIFF", big_tiff=True))
    yield made("one-strip", _saved(picture, "TIFF", strip_size=1 << 30))
    yield made("row-strips", _saved(picture, "TIFF", strip_size=1))
    for orientation in range(2, 9):
        data = _saved(stored(picture, orientation), "TIFF", tiffinfo={274: orientation})
        yield made(f"orientation-{orientation}", data, orientation=orientation)
    turned = np.asarray(stored(picture, 6))
    six: _TiffTags = {274: (3, (6,))}
    yield made("orientation-6-tiles", _tiled(turned, "<", more=six), orientation=6)
    deep = (turned.astype(np.uint16) * 257).astype("<u2")
    yield made("orientation-6-rgb-16", _striped(deep, "<", more=six), orientation=6)
    name = {"tiffinfo": {274: 6}}
    for mode, kind in (("L", "grey"), ("P", "palette"), ("1", "bilevel"), ("CMYK", "cmyk")):
        other = picture.quantize(255) if mode == "P" else picture.convert(mode)
        data = _saved(stored(other, 6), "TIFF", **name)
        yield made(f"orientation-6-{kind}", data, _rgb(other), orientation=6, tolerance=2.0)
    wide = np.asarray(stored(grey, 6)).astype(np.uint16) * 257
    data = _saved(Image.fromarray(wide), "TIFF", **name)
    yield made("orientation-6-grey-16", data, _rgb(grey), orientation=6)
    data = _saved(stored(see_through, 6), "TIFF", **name)
    yield made("orientation-6-rgba", data, flat, orientation=6, has_alpha=True, tolerance=1.0)
    data = _by_opencv(".tiff", see_through, deep=True)
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


_TiffTags = dict[int, tuple[int, bytes | tuple[int, ...]]]


def _tiff_of(
    shape: tuple[int, ...], blocks: list[bytes], more: _TiffTags, order: str, where: tuple[int, int]
) -> bytes:
    """A TIFF of RGB `blocks`; `where`: the tags with their offsets and lengths."""
    height, width = shape[:2]
    offsets = [0]
    tags: _TiffTags = {
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
    start = 8 + len(_ifd(tags, order, 8))
    offsets = [start + sum(len(block) for block in blocks[:nth]) for nth in range(len(blocks))]
    tags[where[0]] = (4, tuple(offsets))
    return _tiff_header(order) + _ifd(tags, order, 8) + b"".join(blocks)


def _associated(see_through: Image.Image, bits: int = 8) -> bytes:
    """Colours multiplied with their alpha, as the TIFF says by ExtraSamples 1."""
    pixels = np.asarray(see_through).astype(np.uint16)
    pixels[:, :, :3] = (pixels[:, :, :3] * pixels[:, :, 3:] + 127) // 255
    more: _TiffTags = {258: (3, (bits,) * 4), 277: (3, (4,)), 338: (3, (1,))}
    if bits == 16:
        return _striped((pixels * np.uint16(257)).astype("<u2"), "<", more)
    return _striped(pixels.astype(np.uint8), "<", more)


def _striped(pixels: NDArray[np.generic], order: str, more: _TiffTags | None = None) -> bytes:
    rows = 16
    parts = [pixels[top : top + rows].tobytes() for top in range(0, len(pixels), rows)]
    bits = (pixels.dtype.itemsize * 8,) * 3
    return _tiff_of(
        pixels.shape, parts, {258: (3, bits), 278: (3, (rows,)), **(more or {})}, order, (273, 279)
    )


def _tiled(
    pixels: Pixels, order: str, compression: int = 1, more: _TiffTags | None = None
) -> bytes:
    """Tiles of 64 x 64, the last ones reaching over the edge."""
    down, right = (-side % 64 for side in pixels.shape[:2])
    padded = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
    corners = [
        (top, left) for top in range(0, len(padded), 64) for left in range(0, padded.shape[1], 64)
    ]
    parts = [padded[top : top + 64, left : left + 64].tobytes() for top, left in corners]
    if compression == 8:
        parts = [zlib.compress(part) for part in parts]
    tags: _TiffTags = {259: (3, (compression,)), 322: (3, (64,)), 323: (3, (64,)), **(more or {})}
    return _tiff_of(pixels.shape, parts, tags, order, (324, 325))


def _planar(pixels: Pixels, order: str) -> bytes:
    parts = [pixels[:, :, channel].tobytes() for channel in range(3)]
    more: _TiffTags = {278: (4, (len(pixels),)), 284: (3, (2,))}
    return _tiff_of(pixels.shape, parts, more, order, (273, 279))


def _tiff_header(order: str) -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)


def _ifd(tags: _TiffTags, order: str, at: int, following: int = 0) -> bytes:
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
    thumbnail = _saved(small, "JPEG")
    tags: _TiffTags = {
        271: (2, b"Camera\0"),
        272: (2, b"Model with a long name\0"),
        274: (3, (orientation,)),
        34665: (4, (0,)),
    }
    own: _TiffTags = {36864: (7, b"0232"), 37500: (7, b"maker note " * 300)}
    sub_at = 8 + len(_ifd(tags, order, 8))
    second_at = sub_at + len(_ifd(own, order, sub_at))
    tags[34665] = (4, (sub_at,))
    second: _TiffTags = {259: (3, (6,)), 513: (4, (0,)), 514: (4, (len(thumbnail),))}
    second[513] = (4, (second_at + len(_ifd(second, order, second_at)),))
    return (
        b"Exif\0\0"
        + _tiff_header(order)
        + _ifd(tags, order, 8, second_at)
        + _ifd(own, order, sub_at)
        + _ifd(second, order, second_at)
        + thumbnail
    )


# --- BMP ----------------------------------------------------------------------------------------


def bmps(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, expected: Pixels = pixels, **more: object) -> CameraFile:
        return CameraFile(f"bmp-{name}", data, "image/bmp", expected, **more)  # type: ignore[arg-type]

    yield made("24", _saved(picture, "BMP"))
    see_through, flat = _with_alpha(picture)
    opaque = _bmp(np.dstack([pixels[:, :, ::-1], np.zeros(pixels.shape[:2], np.uint8)]), 32)
    yield made("32-no-alpha", opaque)
    grey = picture.convert("L")
    yield made("grey-8", _saved(grey, "BMP"), _rgb(grey))
    indexed = picture.quantize(255)
    yield made("palette-8", _saved(indexed, "BMP"), _rgb(indexed))
    bilevel = picture.convert("1")
    yield made("1", _saved(bilevel, "BMP"), _rgb(bilevel))
    few = picture.quantize(16)
    colours, table = np.asarray(few), _bmp_table(few, 16)
    yield made("palette-4", _bmp(colours, 4, table=table), _rgb(few))
    yield made("24-top-down", _bmp(np.ascontiguousarray(pixels[:, :, ::-1]), 24, top_down=True))
    alpha = np.asarray(see_through)[:, :, [2, 1, 0, 3]]
    for size, version in ((108, 4), (124, 5)):
        data = _bmp(alpha, 32, header=size, compression=3)
        yield made(f"32-alpha-v{version}", data, flat, has_alpha=True, tolerance=1.0)
    unused = np.dstack([pixels[:, :, ::-1], np.zeros(pixels.shape[:2], np.uint8)])
    yield made("32-alpha-unused", _bmp(unused, 32, header=124, compression=3))
    data = _by_opencv(".bmp", see_through)
    yield made("32-alpha-opencv", data, flat, has_alpha=True, tolerance=1.0)
    deep = np.asarray(indexed)
    table = _bmp_table(indexed, 256)
    yield made("rle8", _bmp(deep, 8, table=table, compression=1), _rgb(indexed))
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
        coded = (_packed(row.reshape(-1), bits) if bits < 8 else row.tobytes() for row in order)
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


# --- AVIF and HEIC ------------------------------------------------------------------------------


def avifs(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, **more: object) -> CameraFile:
        options = {"pixels": pixels, "tolerance": LOSSY, **more}
        return CameraFile(f"avif-{name}", data, "image/avif", **options)  # type: ignore[arg-type]

    def saved(image: Image.Image, **options: object) -> bytes:
        return _saved(image, "AVIF", speed=9, **options)

    yield made("8-bit", saved(picture))
    yield made("444", saved(picture, subsampling="4:4:4"))
    yield made(
        "10-bit", _by_opencv(".avif", picture, cv2.IMWRITE_AVIF_DEPTH, 10, deep=True, bits=10)
    )
    yield made(
        "12-bit", _by_opencv(".avif", picture, cv2.IMWRITE_AVIF_DEPTH, 12, deep=True, bits=12)
    )
    grey = picture.convert("L")
    yield made("grey", saved(grey), pixels=_rgb(grey))
    see_through, flat = _with_alpha(picture)
    yield made("alpha", saved(see_through), pixels=flat, has_alpha=True)
    deep = _by_opencv(".avif", see_through, cv2.IMWRITE_AVIF_DEPTH, 10, deep=True, bits=10)
    yield made("alpha-10-bit", deep, pixels=flat, has_alpha=True)
    yield made("icc-xmp", saved(picture, icc_profile=_profile(), xmp=RDF % b'a="b"'))
    for orientation in range(1, 9):
        data = saved(stored(picture, orientation), exif=_exif(orientation))
        yield made(f"orientation-{orientation}", data, orientation=orientation)
    other = picture.transpose(Transpose.ROTATE_180)
    data = saved(picture, save_all=True, append_images=[other], duration=100)
    yield made("animated", data, animated=True)


def heics(picture: Image.Image) -> Iterator[CameraFile]:
    pixels = np.asarray(picture)

    def made(name: str, data: bytes, **more: object) -> CameraFile:
        options = {"pixels": pixels, "tolerance": LOSSY, **more}
        return CameraFile(f"heic-{name}", data, "image/heic", **options)  # type: ignore[arg-type]

    plain = heic(picture)
    yield made("8-bit", plain)
    yield made("444", heic(picture, chroma=444))
    yield made("10-bit", _deep_heic(picture))
    grey = picture.convert("L")
    yield made("grey", heic(grey), pixels=_rgb(grey))
    see_through, flat = _with_alpha(picture)
    clear = heic(see_through)
    yield made("alpha", clear, pixels=flat, has_alpha=True)
    for orientation in range(1, 9):
        # irot and imir turn the picture; EXIF says the same once more, as iPhones have it.
        data = heic(stored(picture, orientation), exif=_exif(orientation))
        yield made(f"irot-exif-{orientation}", data, orientation=orientation)
        turned = RDF % (b'xmlns:tiff="tiff" tiff:Orientation="%d"' % orientation)
        data = heic(stored(picture, orientation), xmp=turned)
        yield made(f"irot-xmp-{orientation}", data, orientation=orientation)
    yield made("exif-6-without-irot", _heic_with_idle_exif(picture))
    yield made("tiles-128", heic(picture, tile_size=128))
    data = heic(stored(picture, 6), tile_size=128, exif=_exif(6), thumbnails=[64])
    yield made("iphone-tiles-irot-thumbnail", data, orientation=6)
    yield made("icc-xmp", heic(picture, icc_profile=_profile(), xmp=RDF % b'a="b"'))
    yield made("thumbnail", heic(picture, thumbnails=[64]))
    other = picture.transpose(Transpose.ROTATE_180)
    several = pillow_heif.HeifFile()
    for image in (other, picture, other):
        several.add_from_pillow(image)
    yield made("second-is-primary", _heif_bytes(several, save_all=True, primary_index=1))
    small = pillow_heif.HeifFile()
    for image in (other.reduce(2), picture):
        small.add_from_pillow(image)
    yield made("second-is-primary-and-larger", _heif_bytes(small, save_all=True, primary_index=1))
    # The alpha plane of another file becomes a depth map or Apple's gain map.
    alpha = b"urn:mpeg:hevc:2015:auxid:1\0"
    for name, urn in (
        ("depth", b"urn:mpeg:hevc:2015:auxid:2\0"),
        ("auxiliary", b"urn:com:example:gain-map:x\0"),
    ):
        yield made(name, clear.replace(alpha, urn))
    yield made("motion-samsung", plain + _box(b"mpvd", movie()))
    yield made("free-box", plain + _box(b"free", bytes(200)))
    yield made("trailing-bytes", plain + bytes(3))
    for name, trailer in _trailers(picture):
        if name != "motion-micro-video":  # a bare film would make it a film; they use mpvd
            yield made(f"behind-it-{name}", plain + trailer)
    for brand in (b"mif1", b"msf1", b"heix", b"hevc"):
        yield made(f"major-{brand.decode()}", plain[:8] + brand + plain[12:])


def heic(image: Image.Image, **options: object) -> bytes:
    """`exif` goes into the file, and its orientation into irot and imir."""
    return _heif_bytes(pillow_heif.from_pillow(image), **options)


def _heic_with_idle_exif(picture: Image.Image) -> bytes:
    """EXIF says 6, irot says nothing: HEIF has irot decide, so the picture is stored upright."""
    upright, turned = _exif(1)[6:], _exif(6)[6:]
    return heic(picture, exif=_exif(1)).replace(upright, turned)


def _deep_heic(picture: Image.Image) -> bytes:
    deep = np.asarray(picture).astype(np.uint16) * 257
    file = pillow_heif.from_bytes("RGB;16", picture.size, deep.tobytes())
    return _heif_bytes(file, bit_depth=10)


def _heif_bytes(file: pillow_heif.HeifFile, **options: object) -> bytes:
    out = io.BytesIO()
    file.save(out, quality=80, enc_params={"preset": "ultrafast"}, **options)
    return out.getvalue()


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


# --- shared -------------------------------------------------------------------------------------


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _by_opencv(
    ending: str,
    image: Image.Image,
    *options: int,
    deep: bool = False,
    floating: bool = False,
    bits: int = 16,
) -> bytes:
    pixels: NDArray[np.generic] = np.asarray(image)
    pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    if deep:
        pixels = (pixels.astype(np.uint32) * 257 >> (16 - bits)).astype(np.uint16)
    if floating:
        pixels = pixels.astype(np.float32) / 255
    ok, data = cv2.imencode(ending, np.ascontiguousarray(pixels), options)
    assert ok, f"OpenCV could not write {ending}"
    return bytes(data.tobytes())


def _with_alpha(picture: Image.Image) -> tuple[Image.Image, Pixels]:
    """The picture fading to the left, and what that looks like on white."""
    fading = np.linspace(64, 255, picture.width).astype(np.uint8)
    clear = picture.copy()
    clear.putalpha(Image.fromarray(np.tile(fading, (picture.height, 1))))
    return clear, _flat(clear)


def _flat(image: Image.Image) -> Pixels:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def _rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def _exif(orientation: int) -> bytes:
    """With the prefix of a JPEG's APP1 segment; other formats store it without those 6 bytes."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    return exif.tobytes()


def _profile(size: int = 0) -> bytes:
    """An sRGB profile; made longer, as printers' are, it carries random bytes at its end."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile += random.Random(1).randbytes(max(0, size - len(profile)))
    return struct.pack(">I", len(profile)) + profile[4:]


@cache
def movie() -> bytes:
    """Half a second of MP4, as motion photographs carry it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "motion.mp4")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
        for seed in range(5):
            frame = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            writer.write(frame)
        writer.release()
        return Path(path).read_bytes()
