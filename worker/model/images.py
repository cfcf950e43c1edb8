"""Decodes uploads to upright BGR arrays, resizes them, and encodes arrays as JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pi_heif
from numpy.typing import NDArray

from shared.errors import UndecodableImage, UploadError
from shared.image_header import ImageHeader, read_header
from shared.job.record import DetectParameters
from worker.model.memory_bound import memory_bound

Pixels = NDArray[np.uint8]

MEMORY_BYTES = 256 << 20
MEMORY_BYTES_PER_PIXEL = 10
"""What decoding a picture may take, times its weight. No honest picture takes more
(docs/formats.md)."""

_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# EXIF orientation: (transpose, then this flip code of cv2.flip).
_UPRIGHT: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
_STRIP_PIXELS = 1 << 18
# What OpenCV, pi-heif and NumPy raise. Not `Exception`, which would catch the time limit as well.
_DECODER_ERRORS = (
    cv2.error,
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture, perhaps decoded smaller than the original, whose upright size in pixels is `width`
    x `height`."""

    pixels: Pixels
    """H x W x 3 uint8 BGR, upright."""
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Factors (x, y) from coordinates in `pixels` to those in the original."""
        height, width = self.pixels.shape[:2]
        return self.width / width, self.height / height


def decode(
    image: bytes, *, max_pixels: int, min_side: int = 0, min_scale: float = 0
) -> DecodedImage:
    """Decode an image file. The picture becomes upright, and its transparent parts white.

    `max_pixels`: largest declared size. `min_side`: a JPEG is decoded at half, a quarter or an
    eighth of its size, which is much faster, if its longer side keeps that many pixels; 0 asks for
    full size. `min_scale`: the least share of its size that it keeps. Raises `UndecodableImage`.
    """
    try:
        header = read_header(image, max_pixels=max_pixels)
    except UploadError as error:
        raise UndecodableImage(error.message) from error
    factor = _reduction(header, min_side, min_scale)
    try:
        with memory_bound(_memory_bytes(header)):
            pixels = _upright(_decoded(image, header, factor), header.orientation)
    except _DECODER_ERRORS as error:
        raise UndecodableImage(
            "The image cannot be decoded: the file is damaged, or would take more memory than a "
            "picture of its size may."
        ) from error.with_traceback(None)  # its frames hold the pixels
    width, height = header.upright_size
    if factor == 1:  # the decoder knows the size better than the header
        height, width = pixels.shape[:2]
    return DecodedImage(pixels, width, height)


def side_needed(parameters: DetectParameters, annotated_max_side: int) -> int:
    """Longer side, in pixels, that network and drawing can make use of; 0 for all there is."""
    if parameters.annotate:
        return max(parameters.imgsz, annotated_max_side) if annotated_max_side else 0
    return parameters.imgsz


def scale_needed(parameters: DetectParameters) -> float:
    """Share of a picture's size that its tiles need; 0 without tiles."""
    if parameters.tile is None:
        return 0
    return 1 if parameters.tile == "auto" else min(1, parameters.imgsz / parameters.tile)


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """Encode H x W x 3 uint8 BGR pixels as a JPEG file; `quality`: 1-100."""
    ok, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode the annotated picture")
    return data.tobytes()


def fit_within(pixels: Pixels, max_side: int) -> Pixels:
    """Shrink H x W x 3 pixels so that the longer side is at most `max_side`; 0 sets no limit.

    Returns `pixels` itself, not a copy, if it fits.
    """
    height, width = pixels.shape[:2]
    factor = max_side / max(height, width)
    if not max_side or factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Down to half size, linear interpolation averages as much as INTER_AREA does, in a sixth of the
    # time: INTER_AREA takes 20 ms to halve a 12-megapixel photograph.
    way = cv2.INTER_LINEAR if factor >= 0.5 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)


def _memory_bytes(header: ImageHeader) -> int:
    pixels = header.width * header.height * header.weight
    return MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * pixels


def _reduction(header: ImageHeader, min_side: int, min_scale: float) -> int:
    if header.content_type == "image/jpeg" and min_side:
        for factor in (8, 4, 2):
            enough = max(header.width, header.height) >= factor * min_side
            if enough and factor * min_scale <= 1:
                return factor
    return 1


def _decoded(image: bytes, header: ImageHeader, factor: int) -> Pixels:
    if header.content_type == "image/heic":
        picture = pi_heif.open_heif(image, convert_hdr_to_8bit=True, bgr_mode=True)
        raw = np.asarray(picture)[:, : picture.size[0]]
        pixels = _flatten(raw, 16)
        # The memory of `raw` is freed with `picture`, which NumPy does not keep alive.
        return pixels.copy() if np.may_share_memory(pixels, raw) else pixels
    # `_upright` applies the orientation that our header reader found, for every format alike.
    mode = _REDUCED.get(factor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    if header.has_alpha:
        mode = cv2.IMREAD_UNCHANGED
    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), mode)
    if decoded is None:
        raise ValueError("imdecode gave nothing")
    raw = np.asarray(decoded)
    if header.content_type == "image/bmp" and header.has_alpha and not raw[..., 3:].any():
        # Written by a program that left alpha empty; every viewer shows it as opaque.
        return np.ascontiguousarray(raw[..., :3], np.uint8)
    return _flatten(
        raw,
        # OpenCV leaves AVIF samples in the range of their own bits; all others fill 16.
        header.bits if header.content_type == "image/avif" else 16,
        premultiplied=header.premultiplied,
    )


def _flatten(raw: NDArray[np.generic], bits: int, *, premultiplied: bool = False) -> Pixels:
    """Convert what a decoder gives to H x W x 3 uint8 BGR, transparent parts on white.

    `raw`: H x W grey, or H x W x 3 or 4 in BGR(A) order; uint8, or uint16 of which the lower `bits`
    are used. `premultiplied`: its colours are already multiplied by alpha.
    """
    if raw.dtype == np.uint8 and raw.ndim == 3 and raw.shape[2] == 3:
        return np.asarray(raw, np.uint8)
    if raw.dtype not in (np.uint8, np.uint16):
        raise UndecodableImage(f"Images with {raw.dtype} pixels are not supported.")
    height, width = raw.shape[:2]
    # In strips, since a copy of 50 megapixels in 16 bits takes 400 MB.
    flat = raw.reshape(height * width, -1)
    out = np.empty((height * width, 3), np.uint8)
    for begin in range(0, len(flat), _STRIP_PIXELS):
        strip = flat[begin : begin + _STRIP_PIXELS]
        if strip.dtype == np.uint16:
            strip = (strip >> (bits - 8)).astype(np.uint8)  # type: ignore[operator]
        out[begin : begin + _STRIP_PIXELS] = _on_white(np.asarray(strip, np.uint8), premultiplied)
    return out.reshape(height, width, 3)


def _on_white(strip: Pixels, premultiplied: bool) -> Pixels:
    """Blend N x 4 BGRA pixels with white into N x 3; return N x 1 or N x 3 pixels unchanged."""
    if strip.shape[1] != 4:
        return strip
    alpha = strip[:, 3:].astype(np.uint16)
    colour = strip[:, :3].astype(np.uint16)
    if premultiplied:
        return np.asarray(np.minimum(colour + (255 - alpha), 255), np.uint8)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    transpose, flip = _UPRIGHT.get(orientation, (False, None))
    if transpose:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    if flip is not None:
        pixels = np.asarray(cv2.flip(pixels, flip), np.uint8)
    return pixels
