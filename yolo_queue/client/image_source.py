"""Turns a path, bytes, an array or a Pillow image into the encoded image to send."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from PIL import Image


class Array(Protocol):
    """A NumPy array, or any object with the same interface."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Array | Image.Image"
)

_PNG_MODES = ("1", "L", "RGB")


def encoded(source: ImageSource) -> bytes:
    """The bytes to send.

    - a path: the file, unchanged
    - bytes: an encoded image (JPEG, PNG, WebP ...), unchanged
    - a uint8 array of shape (height, width) grey, (height, width, 3) RGB or (height, width, 4)
      RGBA: lossless PNG. OpenCV's arrays are BGR: pass `image[..., ::-1]`
    - a Pillow image: lossless PNG of its pixels, without EXIF rotation

    Raises OSError if a file cannot be read, and TypeError or ValueError for other sources.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    if hasattr(source, "getbands") and hasattr(source, "save"):
        return _png(source)
    if hasattr(source, "__array_interface__"):
        return _png(_from_array(source))
    raise TypeError(
        f"An image must be a path, bytes, a uint8 array or a Pillow image, not "
        f"{type(source).__name__}."
    )


def _from_array(array: Any) -> Image.Image:
    from PIL import Image

    shape = tuple(array.__array_interface__["shape"])
    kind = array.__array_interface__["typestr"]
    if kind[1:] != "u1":
        raise TypeError(f"An array must be uint8 with values 0-255, not {kind}.")
    if len(shape) == 3 and shape[2] == 1:
        array, shape = array[..., 0], shape[:2]
    if 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ValueError(
            f"An array must be (height, width), (height, width, 3) or (height, width, 4), "
            f"not {shape}."
        )
    return Image.fromarray(array)


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    if image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    # Level 1 takes a fifth of the default level's time for a tenth more bytes. Without EXIF, the
    # detections are in the coordinates of the pixels that the caller sees.
    image.save(out, "PNG", compress_level=1, exif=b"")
    return out.getvalue()
