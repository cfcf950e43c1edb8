"""Encoded images for tests, made on the spot."""

from __future__ import annotations

import io
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


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green, blue and white quarters: orientation and channel order can be read off it."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
