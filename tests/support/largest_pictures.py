"""Makes pictures as large as `MAX_IMAGE_PIXELS` allows, of every kind with its own memory use.

They are flat where possible, so that they stay below `MAX_UPLOAD_BYTES`: the memory that decoding
takes follows from size, mode and coding, not from what they show.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import encoded

WIDTH, HEIGHT = 12_500, 8_000

WEIGHTS = {"50 megapixels": 2, "25 megapixels": 4}
"""In the names of those kinds that may have a share of `MAX_IMAGE_PIXELS` alone."""

TEN_BITS = [cv2.IMWRITE_AVIF_DEPTH, 10]
AVIF_SPEED = [cv2.IMWRITE_AVIF_SPEED, 10, cv2.IMWRITE_AVIF_QUALITY, 60]
PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
FULL_COLOUR = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
SMALL_FILE = [cv2.IMWRITE_JPEG_QUALITY, 30]
LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
LOSSLESS = [cv2.IMWRITE_WEBP_QUALITY, 101]


def largest_pictures(width: int = WIDTH, height: int = HEIGHT) -> Iterator[tuple[str, bytes]]:
    """(kind, file), made one after the other."""
    for name in _makers():
        yield name, largest_picture(name, width, height)


def largest_picture(name: str, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """The one of that kind."""
    weight = next((n for words, n in WEIGHTS.items() if words in name), 1)
    return _makers()[name](_bgra(width // weight, height))


def _makers() -> dict[str, Callable[[NDArray[np.uint8]], bytes]]:
    return {
        "JPEG": lambda p: _opencv(".jpg", _bgr(p), SMALL_FILE),
        "JPEG progressive": lambda p: _opencv(".jpg", _bgr(p), PROGRESSIVE + SMALL_FILE),
        "JPEG progressive 4:4:4": lambda p: _opencv(
            ".jpg", _bgr(p), PROGRESSIVE + FULL_COLOUR + SMALL_FILE
        ),
        "JPEG progressive CMYK": lambda p: encoded(_cmyk(p), "JPEG", progressive=True, quality=1),
        "PNG 8 bits": lambda p: _opencv(".png", _bgr(p)),
        "PNG 16 bits": lambda p: _opencv(".png", _deep(_bgr(p))),
        "PNG grey with alpha": lambda p: encoded(Image.fromarray(_bgr(p)[..., :2], "LA"), "PNG"),
        "PNG 8 bits with alpha": lambda p: _opencv(".png", p),
        "PNG 16 bits with alpha, 50 megapixels": lambda p: _opencv(".png", _deep(p)),
        "TIFF 8 bits with alpha": lambda p: _opencv(".tif", p, LZW),
        "TIFF 16 bits": lambda p: _opencv(".tif", _deep(_bgr(p)), LZW),
        "TIFF 16 bits with alpha, 50 megapixels": lambda p: _opencv(".tif", _deep(p), LZW),
        "WebP": lambda p: _opencv(".webp", _bgr(p)),
        "WebP with alpha": lambda p: _opencv(".webp", p, LOSSLESS),
        "GIF transparent": lambda p: encoded(Image.fromarray(p[..., 0]), "GIF", transparency=3),
        "BMP 1 bit": lambda p: encoded(Image.fromarray(p[..., 0]).convert("1"), "BMP"),
        "HEIC": lambda p: _heic(_bgr(p)),
        "HEIC 4:4:4": lambda p: _heic(_bgr(p), chroma=444),
        "HEIC with alpha": _heic,
        "HEIC 10 bits with alpha, 50 megapixels": _deep_heic,
        "AVIF 8 bits, 50 megapixels": lambda p: _opencv(".avif", _bgr(p), AVIF_SPEED),
        "AVIF 8 bits with alpha, 25 megapixels": lambda p: _opencv(".avif", p, AVIF_SPEED),
        "AVIF 10 bits, 50 megapixels": lambda p: _opencv(
            ".avif", _ten_bits(_bgr(p)), [*AVIF_SPEED, *TEN_BITS]
        ),
        "AVIF 10 bits with alpha, 25 megapixels": lambda p: _opencv(
            ".avif", _ten_bits(p), [*AVIF_SPEED, *TEN_BITS]
        ),
    }


def _bgra(width: int, height: int) -> NDArray[np.uint8]:
    picture = np.full((height, width, 4), 1, np.uint8)
    picture[::7] = 200
    picture[..., 3] = np.arange(width) // 40 % 256
    return picture


def _bgr(bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(bgra[..., :3])


def _deep(picture: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return picture.astype(np.uint16) * np.uint16(257)


def _ten_bits(picture: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return picture.astype(np.uint16) * np.uint16(4)


def _cmyk(bgra: NDArray[np.uint8]) -> Image.Image:
    return Image.frombuffer("CMYK", bgra.shape[1::-1], bgra.tobytes())


def _opencv(suffix: str, picture: NDArray[np.generic], options: list[int] | None = None) -> bytes:
    done, data = cv2.imencode(suffix, picture, options or [])
    assert done, suffix
    return bytes(data.tobytes())


def _heic(picture: NDArray[np.uint8], **options: object) -> bytes:
    mode = "RGBA" if picture.shape[2] == 4 else "RGB"
    return _saved_heic(mode, picture, **options)


def _deep_heic(picture: NDArray[np.uint8]) -> bytes:
    return _saved_heic("RGBA;16", _deep(picture))


def _saved_heic(mode: str, picture: NDArray[np.generic], **options: object) -> bytes:
    out = io.BytesIO()
    file = pillow_heif.from_bytes(mode, picture.shape[1::-1], picture.tobytes())
    file.save(out, quality=30, **options)
    return out.getvalue()
