"""Makes and loads the images that tests and benchmarks send."""

from __future__ import annotations

import io
import random
from importlib.resources import files

import numpy as np
from PIL import Image

from tests.support.stack import ROOT

SAMPLES = ROOT / "models" / "samples"


def photograph(name: str = "bus.jpg") -> bytes:
    """One of the two photographs inside the ultralytics package."""
    return (files("ultralytics") / "assets" / name).read_bytes()


def sample(name: str = "mixed.jpg") -> bytes:
    """A picture of printed codes that the demo model recognises."""
    return (SAMPLES / name).read_bytes()


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def noise_jpeg(width: int, height: int, size_bytes: int) -> bytes:
    """A JPEG of noise, its quality chosen for about this size."""
    picture = noise(width, height)
    return min(
        (encoded(picture, "JPEG", quality=quality) for quality in range(5, 60)),
        key=lambda data: abs(len(data) - size_bytes),
    )


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green, blue and white quarters, which show orientation and channel order."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def undecodable(seed: int = 0) -> bytes:
    """A PNG with random bytes behind an intact header: the gateway accepts it, the worker cannot
    decode it."""
    data = bytearray(encoded(noise(100, 80, seed=seed), "PNG"))  # in one chunk
    data[60:-60] = random.Random(seed).randbytes(len(data) - 120)
    return bytes(data)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def many_codes(columns: int = 8, rows: int = 6) -> tuple[Image.Image, list[tuple[int, int]]]:
    """A picture of many small ones, `SMALL_CODES` in size, with three codes in each; and where
    their left upper corners are. Some of them lie on the edges of any tiles."""
    small = Image.open(io.BytesIO(sample())).convert("RGB").resize(SMALL_CODES)
    canvas = Image.new("RGB", (500 * columns, 500 * rows), (128, 128, 128))
    places = [(70 + 490 * x, 90 + 480 * y) for y in range(rows) for x in range(columns)]
    for place in places:
        canvas.paste(small, place)
    return canvas, places


SMALL_CODES = 320, 240
