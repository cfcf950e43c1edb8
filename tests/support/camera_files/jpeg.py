"""Makes JPEG files, with what cameras put before and behind the picture."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from tests.support.camera_files.base import (
    LOSSY,
    RDF,
    XMP,
    CameraFile,
    Transpose,
    by_opencv,
    exif_of,
    icc,
    maker,
    movie,
    rgb_of,
    stored,
)
from tests.support.camera_files.tiff import exif_with_thumbnail, ifd, tiff_header
from tests.support.images import encoded


def jpegs(picture: Image.Image) -> Iterator[CameraFile]:
    made = maker("jpeg", np.asarray(picture), LOSSY)
    plain = encoded(picture, "JPEG")
    yield made("baseline", plain)
    yield made("progressive", encoded(picture, "JPEG", progressive=True))
    for ratio in ("4:4:4", "4:2:2", "4:2:0"):
        yield made(ratio.replace(":", ""), encoded(picture, "JPEG", subsampling=ratio))
    for ratio in ("411", "440"):
        sampling = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{ratio}")
        data = by_opencv(".jpg", picture, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
        yield made(f"{ratio}-opencv", data)
    yield made("optimized", encoded(picture, "JPEG", optimize=True))
    yield made("restart-blocks", encoded(picture, "JPEG", restart_marker_blocks=3))
    yield made("restart-rows-progressive", _restarting(picture))
    yield made("rgb", encoded(picture, "JPEG", keep_rgb=True))
    grey = picture.convert("L")
    yield made("grey", encoded(grey, "JPEG"), pixels=rgb_of(grey))
    cmyk = picture.convert("CMYK")
    yield made("cmyk", encoded(cmyk, "JPEG"))
    yield made("cmyk-progressive", encoded(cmyk, "JPEG", progressive=True))
    yield made("ycck", _ycck(cmyk))

    for orientation in range(1, 9):
        data = encoded(stored(picture, orientation), "JPEG", exif=exif_of(orientation))
        yield made(f"exif-{orientation}", data, orientation=orientation)
    for order in "<>":
        exif = exif_with_thumbnail(picture, order, orientation=6)
        data = encoded(stored(picture, 6), "JPEG", exif=exif)
        ending = "intel" if order == "<" else "motorola"
        yield made(f"exif-thumbnail-{ending}", data, orientation=6)
    yield made("icc", encoded(picture, "JPEG", icc_profile=icc()))
    yield made("icc-300-kb", encoded(picture, "JPEG", icc_profile=icc(300_000)))
    yield made("xmp", encoded(picture, "JPEG", xmp=RDF % b'xmlns:a="a" a:b="c"'))
    yield made("xmp-extended", with_segments(plain, _extended_xmp(40)))
    yield made("comment", encoded(picture, "JPEG", comment=b"made by a scanner" * 100))
    yield made("many-comments", with_segments(plain, _segment(0xFE, b"line") * 40))
    yield made("photoshop", with_segments(plain, _photoshop(picture)))
    yield made("fill-bytes", with_fill_bytes(plain))
    yield made(
        "fill-bytes-progressive", with_fill_bytes(encoded(picture, "JPEG", progressive=True))
    )
    yield from (made(name, data) for name, data in _several_in_one(picture, plain))
    yield from (made(name, plain + trailer) for name, trailer in trailers(picture))
    rotated = encoded(stored(picture, 6), "JPEG", exif=exif_of(6))
    yield made("exif-6-motion", rotated + movie(), orientation=6)


def _restarting(picture: Image.Image) -> bytes:
    return encoded(picture, "JPEG", restart_marker_rows=1, progressive=True)


def _ycck(cmyk: Image.Image) -> bytes:
    """Adobe's YCCK: Pillow writes four channels as they are, so hand it converted ones and say in
    the Adobe segment that they are."""
    cyan, magenta, yellow, black = cmyk.split()
    inks = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    turned = [channel.point(lambda value: 255 - value) for channel in inks.split()]
    data = encoded(Image.merge("CMYK", (*turned, black)), "JPEG")
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def _several_in_one(picture: Image.Image, plain: bytes) -> Iterator[tuple[str, bytes]]:
    """Multi-Picture Format and its users."""
    other = picture.transpose(Transpose.ROTATE_180)
    yield "mpo", encoded(picture, "MPO", save_all=True, append_images=[other])
    yield "mpo-three", encoded(picture, "MPO", save_all=True, append_images=[other, other])
    gain = picture.convert("L").reduce(2)
    yield "ultra-hdr-android", _ultra_hdr(plain, encoded(gain, "JPEG"))
    yield "hdr-iphone", _iphone_hdr(plain, encoded(gain, "JPEG"))


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
    return _multi_picture(primary, gain, _segment(0xE1, exif_of(1)), order=">")


def _multi_picture(primary: bytes, second: bytes, before: bytes, order: str) -> bytes:
    """Two JPEGs in one file, with the index (CIPA DC-007) behind the segments `before`."""

    def index(sizes: tuple[int, int], offset: int) -> bytes:
        entries = struct.pack(f"{order}IIIHH", 0x030000, sizes[0], 0, 0, 0)
        entries += struct.pack(f"{order}IIIHH", 0, sizes[1], offset, 0, 0)
        tags = {0xB000: (7, b"0100"), 0xB001: (4, (2,)), 0xB002: (7, entries)}
        return _segment(0xE2, b"MPF\0" + tiff_header(order) + ifd(tags, order, 8))

    size = len(primary) + len(before) + len(index((0, 0), 0))
    base = 2 + len(before) + 8  # offsets count from the byte order mark behind "MPF\0"
    whole = before + index((size, len(second)), size - base)
    return with_segments(primary, whole) + second


def trailers(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
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
    second = encoded(picture.reduce(2), "JPEG")
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
    thumbnail = encoded(picture.resize((64, 48)), "JPEG")
    body = struct.pack(">IIIIIIHH", 1, 64, 48, 192, 9216, len(thumbnail), 24, 1) + thumbnail
    block = b"8BIM" + struct.pack(">HHI", 1036, 0, len(body)) + body + bytes(len(body) % 2)
    return _segment(0xED, b"Photoshop 3.0\0" + block)
