"""Decoding to upright BGR pixels, resizing and encoding."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shared.errors import UndecodableImage
from tests.support.images import encoded, noise, photograph, quadrants
from worker.model.images import decode, encode_jpeg, fit_within

LIMIT = 50_000_000
BGR = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "white": (255, 255, 255)}


def corners(pixels: np.ndarray) -> list[str]:
    """Colour names of the four quarters: top left, top right, bottom left, bottom right."""
    height, width = pixels.shape[:2]
    found = []
    for y in (height // 4, height * 3 // 4):
        for x in (width // 4, width * 3 // 4):
            distances = {
                name: np.abs(pixels[y, x].astype(int) - colour).sum()
                for name, colour in BGR.items()
            }
            found.append(min(distances, key=distances.__getitem__))
    return found


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_decodes_every_format_to_bgr(form: str) -> None:
    image = decode(encoded(quadrants(), form), max_pixels=LIMIT)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (48, 64, 3)
    assert corners(image.pixels) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "RGB"])
def test_decodes_every_kind_of_pixel(mode: str) -> None:
    source = quadrants()
    if mode == "I;16":
        grey = np.asarray(source.convert("L"), np.uint16) * 257
        picture = Image.fromarray(grey)
    else:
        picture = source.convert(mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    image = decode(encoded(picture, form), max_pixels=LIMIT)
    assert image.pixels.shape == (48, 64, 3)
    expected = np.asarray(
        source.convert("L" if mode in ("L", "LA", "I;16") else "RGB").convert("RGB")
    )
    if mode != "1":  # dithered: only the mean is comparable
        difference = np.abs(image.pixels[:, :, ::-1].astype(int) - expected).mean()
        assert difference < 12, (mode, difference)


def test_16_bit_colour_keeps_its_colours() -> None:
    import cv2

    wide = np.asarray(quadrants())[:, :, ::-1].astype(np.uint16) * 257
    ok, data = cv2.imencode(".png", wide)
    assert ok
    image = decode(data.tobytes(), max_pixels=LIMIT)
    assert corners(image.pixels) == ["red", "green", "blue", "white"]


def test_transparent_parts_are_white() -> None:
    picture = quadrants().convert("RGBA")
    picture.putalpha(Image.fromarray(np.zeros((48, 64), np.uint8)))
    image = decode(encoded(picture, "PNG"), max_pixels=LIMIT)
    assert (image.pixels == 255).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(form: str, orientation: int) -> None:
    """Each file stores the picture so that its orientation tag makes it upright again."""
    stored = {
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }[orientation](quadrants())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, form, exif=exif), max_pixels=LIMIT)
    assert (image.width, image.height) == (64, 48)
    assert image.pixels.shape == (48, 64, 3)
    assert corners(image.pixels) == ["red", "green", "blue", "white"]


def test_a_large_jpeg_is_decoded_no_larger_than_needed() -> None:
    data = encoded(noise(4000, 3000), "JPEG")
    full = decode(data, max_pixels=LIMIT)
    assert full.pixels.shape == (3000, 4000, 3)
    half = decode(data, max_pixels=LIMIT, min_side=1920)
    assert half.pixels.shape == (1500, 2000, 3)
    assert half.scale == (2.0, 2.0)
    assert (half.width, half.height) == (4000, 3000)
    assert decode(data, max_pixels=LIMIT, min_side=640).pixels.shape == (750, 1000, 3)


def test_a_reduced_jpeg_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encoded(noise(2001, 1001), "JPEG", exif=exif), max_pixels=LIMIT, min_side=640)
    assert (image.width, image.height) == (1001, 2001)
    height, width = image.pixels.shape[:2]
    assert height > width
    scale_x, scale_y = image.scale
    assert width * scale_x == pytest.approx(1001)
    assert height * scale_y == pytest.approx(2001)


def test_a_broken_file_is_refused() -> None:
    data = bytearray(encoded(noise(100, 80), "PNG"))
    data[60:-60] = bytes(len(data) - 120)
    with pytest.raises(UndecodableImage):
        decode(bytes(data), max_pixels=LIMIT)


def test_encode_and_fit() -> None:
    pixels = decode(photograph(), max_pixels=LIMIT).pixels
    small = fit_within(pixels, 540)
    assert small.shape == (540, 405, 3)
    assert fit_within(pixels, 0) is pixels
    assert fit_within(small, 540) is small
    again = decode(encode_jpeg(small, quality=90), max_pixels=LIMIT).pixels
    assert np.abs(again.astype(int) - small).mean() < 4
