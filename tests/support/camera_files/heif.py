"""Makes AVIF and HEIC files."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from tests.support.camera_files.base import (
    LOSSY,
    RDF,
    CameraFile,
    Transpose,
    by_opencv,
    exif_of,
    icc,
    maker,
    movie,
    rgb_of,
    stored,
    with_alpha,
)
from tests.support.camera_files.jpeg import trailers
from tests.support.images import encoded


def avifs(picture: Image.Image) -> Iterator[CameraFile]:
    made = maker("avif", np.asarray(picture), LOSSY)

    def saved(image: Image.Image, **options: object) -> bytes:
        return encoded(image, "AVIF", speed=9, **options)

    yield made("8-bit", saved(picture))
    yield made("444", saved(picture, subsampling="4:4:4"))
    yield made(
        "10-bit", by_opencv(".avif", picture, cv2.IMWRITE_AVIF_DEPTH, 10, deep=True, bits=10)
    )
    yield made(
        "12-bit", by_opencv(".avif", picture, cv2.IMWRITE_AVIF_DEPTH, 12, deep=True, bits=12)
    )
    grey = picture.convert("L")
    yield made("grey", saved(grey), pixels=rgb_of(grey))
    see_through, flat = with_alpha(picture)
    yield made("alpha", saved(see_through), pixels=flat, has_alpha=True)
    deep = by_opencv(".avif", see_through, cv2.IMWRITE_AVIF_DEPTH, 10, deep=True, bits=10)
    yield made("alpha-10-bit", deep, pixels=flat, has_alpha=True)
    yield made("icc-xmp", saved(picture, icc_profile=icc(), xmp=RDF % b'a="b"'))
    for orientation in range(1, 9):
        data = saved(stored(picture, orientation), exif=exif_of(orientation))
        yield made(f"orientation-{orientation}", data, orientation=orientation)
    other = picture.transpose(Transpose.ROTATE_180)
    data = saved(picture, save_all=True, append_images=[other], duration=100)
    yield made("animated", data, animated=True)


def heics(picture: Image.Image) -> Iterator[CameraFile]:
    made = maker("heic", np.asarray(picture), LOSSY)
    plain = heic(picture)
    yield made("8-bit", plain)
    yield made("444", heic(picture, chroma=444))
    yield made("10-bit", _deep_heic(picture))
    grey = picture.convert("L")
    yield made("grey", heic(grey), pixels=rgb_of(grey))
    see_through, flat = with_alpha(picture)
    clear = heic(see_through)
    yield made("alpha", clear, pixels=flat, has_alpha=True)
    for orientation in range(1, 9):
        # irot and imir turn the picture; EXIF says the same once more, as iPhones have it.
        data = heic(stored(picture, orientation), exif=exif_of(orientation))
        yield made(f"irot-exif-{orientation}", data, orientation=orientation)
        turned = RDF % (b'xmlns:tiff="tiff" tiff:Orientation="%d"' % orientation)
        data = heic(stored(picture, orientation), xmp=turned)
        yield made(f"irot-xmp-{orientation}", data, orientation=orientation)
    yield made("exif-6-without-irot", _heic_with_idle_exif(picture))
    yield made("tiles-128", heic(picture, tile_size=128))
    data = heic(stored(picture, 6), tile_size=128, exif=exif_of(6), thumbnails=[64])
    yield made("iphone-tiles-irot-thumbnail", data, orientation=6)
    yield made("icc-xmp", heic(picture, icc_profile=icc(), xmp=RDF % b'a="b"'))
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
    for name, trailer in trailers(picture):
        if name != "motion-micro-video":  # a bare film would make it a film; they use mpvd
            yield made(f"behind-it-{name}", plain + trailer)
    for brand in (b"mif1", b"msf1", b"heix", b"hevc"):
        yield made(f"major-{brand.decode()}", plain[:8] + brand + plain[12:])


def heic(image: Image.Image, **options: object) -> bytes:
    """`exif` goes into the file, and its orientation into irot and imir."""
    return _heif_bytes(pillow_heif.from_pillow(image), **options)


def _heic_with_idle_exif(picture: Image.Image) -> bytes:
    """EXIF says 6, irot says nothing: HEIF has irot decide, so the picture is stored upright."""
    upright, turned = exif_of(1)[6:], exif_of(6)[6:]
    return heic(picture, exif=exif_of(1)).replace(upright, turned)


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
