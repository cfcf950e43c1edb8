"""Makes camera files: what the modules of all formats share."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[np.uint8]
Transpose = Image.Transpose

# Turns the upright picture into the stored one, by EXIF orientation.
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
    """`pixels`: H x W x 3, RGB, upright, transparent parts on white. `tolerance`: allowed mean
    absolute difference from them. `orientation`: 1-8, from EXIF, a TIFF tag or irot/imir; from 5
    on the stored picture has its sides swapped."""

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


def maker(form: str, shown: Pixels, tolerance: float = 0.0) -> Callable[..., CameraFile]:
    """A function that makes the files of one format. They show `shown`, if nothing else is said."""

    def made(name: str, data: bytes, pixels: Pixels = shown, **more: Any) -> CameraFile:
        options = {"tolerance": tolerance, **more}
        return CameraFile(f"{form}-{name}", data, f"image/{form}", pixels, **options)

    return made


def stored(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera held that way stores it."""
    return picture.transpose(STORED[orientation]) if orientation in STORED else picture


def by_opencv(
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


def with_alpha(picture: Image.Image) -> tuple[Image.Image, Pixels]:
    """The picture fading to the left, and what that looks like on white."""
    fading = np.linspace(64, 255, picture.width).astype(np.uint8)
    clear = picture.copy()
    clear.putalpha(Image.fromarray(np.tile(fading, (picture.height, 1))))
    return clear, on_white(clear)


def on_white(image: Image.Image) -> Pixels:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def rgb_of(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"))


def exif_of(orientation: int) -> bytes:
    """With the prefix of a JPEG's APP1 segment; other formats store it without those 6 bytes."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    return exif.tobytes()


def icc(size: int = 0) -> bytes:
    """An sRGB profile. With `size`, as long as a printer's, by random bytes at its end."""
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
