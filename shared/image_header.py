"""Owns the look at an image's header: type, declared size and orientation, without decoding.

Pillow reads the header alone (`Image.open` is lazy); no pixel is allocated, so a 1 KB file that
declares 50,000 x 50,000 pixels costs nothing here.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image

from shared.errors import InvalidImage, TooManyPixels, UnsupportedMediaType

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""Formats that are accepted, by Pillow's names. Of animated files the first frame counts."""

_MAGIC = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (8, b"WEBP"),
    (0, b"BM"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"GIF8"),
    (4, b"ftypavi"),
)
_JPEG_TAIL_BYTES = 64
_TRANSPOSED = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of itself. `width` and `height` are in pixels as stored; `orientation` is
    the EXIF value 1-8, and `has_alpha` tells whether pixels may be transparent."""

    content_type: str
    width: int
    height: int
    orientation: int
    has_alpha: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as a viewer shows the image, EXIF orientation applied."""
        if self.orientation in _TRANSPOSED:
            return self.height, self.width
        return self.width, self.height


def read_header(image: bytes, *, max_pixels: int) -> ImageHeader:
    """Read and check the header of an encoded image.

    Raises `UnsupportedMediaType` if it is no image of an accepted format, `InvalidImage` if its
    header is broken or the file ends early, `TooManyPixels` if it declares more than `max_pixels`.
    """
    if not any(image[at : at + len(magic)] == magic for at, magic in _MAGIC):
        raise UnsupportedMediaType(
            "Not an image of a supported type; send JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF."
        )
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning comes before our limit can speak.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image), formats=list(CONTENT_TYPES)) as picture:
                width, height = picture.size
                header = ImageHeader(
                    content_type=CONTENT_TYPES[picture.format or ""],
                    width=width,
                    height=height,
                    orientation=_orientation(picture),
                    has_alpha=picture.mode in ("RGBA", "LA", "PA", "La", "RGBa")
                    or "transparency" in picture.info,
                )
    except Image.DecompressionBombError as error:
        raise TooManyPixels(
            f"The image declares more than the {max_pixels:,} pixels allowed."
        ) from error
    except Exception as error:  # Pillow's parsers raise nearly anything on a broken header.
        raise InvalidImage("The image's header is broken or the file is not complete.") from error
    if width * height > max_pixels:
        raise TooManyPixels(
            f"The image declares {width} x {height} pixels; at most {max_pixels:,} are allowed."
        )
    if _ends_early(image, header.content_type):
        raise InvalidImage("The file is not complete; send it again.")
    return header


def _ends_early(image: bytes, content_type: str) -> bool:
    """Whether the end of a JPEG or PNG is missing. Decoders would fill the rest with grey."""
    if content_type == "image/jpeg":
        # Where it nearly always is. Neither the coded picture nor what has to stand in front of it
        # leaves room for such bytes there by accident.
        if image.rfind(b"\xff\xd9", -_JPEG_TAIL_BYTES) >= 0:
            return False
        # After the last start of a scan: an EXIF thumbnail has an end marker of its own.
        return image.find(b"\xff\xd9", max(0, image.rfind(b"\xff\xda"))) < 0
    return content_type == "image/png" and image.rfind(b"IEND") < 0


def _orientation(picture: Image.Image) -> int:
    if picture.format == "TIFF":
        # Pillow's size is upright already, and so are the pixels that OpenCV's decoder gives.
        return 1
    try:
        value = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # A broken EXIF block does not make the picture unusable.
        return 1
    return value if 1 <= value <= 8 else 1
