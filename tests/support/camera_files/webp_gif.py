"""Makes WebP and GIF files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
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
    rgb_of,
    stored,
    with_alpha,
)
from tests.support.images import encoded


def webps(picture: Image.Image) -> Iterator[CameraFile]:
    made = maker("webp", np.asarray(picture), LOSSY)
    plain = encoded(picture, "WEBP")
    yield made("lossy", plain)
    yield made("lossless", encoded(picture, "WEBP", lossless=True), tolerance=0.0)
    see_through, flat = with_alpha(picture)
    yield made("lossy-alpha", encoded(see_through, "WEBP"), pixels=flat, has_alpha=True)
    data = encoded(see_through, "WEBP", lossless=True)
    yield made("lossless-alpha", data, pixels=flat, has_alpha=True, tolerance=1.0)
    yield made("icc-xmp", encoded(picture, "WEBP", icc_profile=icc(), xmp=RDF % b'a="b"'))
    for orientation in range(1, 9):
        data = encoded(stored(picture, orientation), "WEBP", exif=exif_of(orientation))
        yield made(f"exif-{orientation}", data, orientation=orientation)
    bare = encoded(stored(picture, 6), "WEBP", exif=exif_of(6)[6:])
    yield made("exif-6-without-prefix", bare, orientation=6)
    other = picture.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other, picture], "duration": 100}
    yield made("animated", encoded(picture, "WEBP", **moving), animated=True)
    yield made(
        "animated-lossless", encoded(picture, "WEBP", lossless=True, **moving), animated=True
    )
    data = encoded(see_through, "WEBP", **moving)
    yield made("animated-alpha", data, pixels=flat, has_alpha=True, animated=True)
    yield made("trailing-bytes", plain + bytes(100))


def gifs(picture: Image.Image) -> Iterator[CameraFile]:
    indexed = picture.quantize(255)
    pixels = rgb_of(indexed)
    made = maker("gif", pixels)
    plain = encoded(indexed, "GIF", interlace=0)
    yield made("plain", plain)
    yield made("interlaced", encoded(indexed, "GIF", interlace=1))
    grey = picture.convert("L")
    yield made("grey", encoded(grey, "GIF"), pixels=rgb_of(grey))
    # Pillow writes a transparent pixel only where a mask leaves one.
    clear = pixels.copy()
    clear[np.asarray(indexed) == 0] = 255
    data = encoded(indexed, "GIF", transparency=0, optimize=False)
    yield made("transparent", data, pixels=clear, has_alpha=True)
    other = indexed.transpose(Transpose.ROTATE_180)
    moving = {"save_all": True, "append_images": [other], "duration": 100, "loop": 0}
    yield made("animated", encoded(indexed, "GIF", **moving), animated=True)
    yield made("opencv", by_opencv(".gif", picture), pixels=np.asarray(picture), tolerance=24.0)
    yield made("comment", encoded(indexed, "GIF", comment=b"words " * 200))
    yield made("trailing-bytes", plain + bytes(100))
