"""Owns pixels: from an encoded upload to an upright BGR array, and from an array to a JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import UndecodableImage, UploadError
from shared.image_header import read_header

Pixels = NDArray[np.uint8]

_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# EXIF orientation -> (transpose, flip code of cv2.flip), applied in this order.
_UPRIGHT: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels`: H x W x 3, uint8, BGR, upright; perhaps smaller than the original, whose upright
    size in pixels is `width` x `height`."""

    pixels: Pixels
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Factors (x, y) from coordinates in `pixels` to the original's."""
        height, width = self.pixels.shape[:2]
        return self.width / width, self.height / height


def decode(image: bytes, *, max_pixels: int, min_side: int = 0) -> DecodedImage:
    """Decode an upload, upright, transparent parts on white.

    `min_side`: a JPEG may be decoded at half, a quarter or an eighth of its size, which libjpeg
    does much faster, as long as its longer side keeps that many pixels; 0 asks for full size.
    Raises `UndecodableImage`.
    """
    try:
        header = read_header(image, max_pixels=max_pixels)
    except UploadError as error:
        raise UndecodableImage(error.message) from error

    mode = cv2.IMREAD_COLOR
    if header.has_alpha:
        mode = cv2.IMREAD_UNCHANGED
    elif header.content_type == "image/jpeg" and min_side:
        for factor in (8, 4, 2):
            if max(header.width, header.height) >= factor * min_side:
                mode = _REDUCED[factor]
                break
    try:
        # Orientation is applied below, from one source for every format.
        raw = cv2.imdecode(
            np.frombuffer(image, np.uint8),
            mode | cv2.IMREAD_IGNORE_ORIENTATION if mode != cv2.IMREAD_UNCHANGED else mode,
        )
    except cv2.error as error:
        raise UndecodableImage("The image cannot be decoded; is the file complete?") from error
    if raw is None:  # imdecode's way to say no
        raise UndecodableImage("The image cannot be decoded; is the file complete?")
    pixels = _flatten(raw)
    width, height = header.upright_size
    return DecodedImage(_upright(pixels, header.orientation), width, height)


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """JPEG of an H x W x 3 BGR array; `quality` 1-100."""
    ok, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode the annotated picture")
    return data.tobytes()


def fit_within(pixels: Pixels, max_side: int) -> Pixels:
    """The picture with its longer side at most `max_side` pixels; 0 leaves it as it is."""
    height, width = pixels.shape[:2]
    factor = max_side / max(height, width)
    if not max_side or factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Down to half, two neighbours hold all there is to average; the mean over an area takes six
    # times as long, 20 ms for the half of a 12-megapixel photograph.
    way = cv2.INTER_LINEAR if factor >= 0.5 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)


def _flatten(raw: NDArray[np.generic]) -> Pixels:
    """8-bit BGR from whatever `IMREAD_UNCHANGED` gives; transparency becomes white."""
    if raw.dtype == np.uint16:
        raw = (raw >> 8).astype(np.uint8)  # type: ignore[operator]
    elif raw.dtype != np.uint8:
        raise UndecodableImage(f"Images with {raw.dtype} pixels are not supported.")
    pixels: Pixels = np.asarray(raw, dtype=np.uint8)
    if pixels.ndim == 2:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.uint16)
        colour = pixels[:, :, :3].astype(np.uint16)
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return pixels


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    transpose, flip = _UPRIGHT.get(orientation, (False, None))
    if transpose:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    if flip is not None:
        pixels = np.asarray(cv2.flip(pixels, flip), np.uint8)
    return pixels
