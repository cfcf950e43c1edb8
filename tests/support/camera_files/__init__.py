"""Makes pictures as phones, cameras, scanners and desktop programs store them, all of the same.

Libraries write them where one can. What no library here writes (Adam7, tiled TIFF, Ultra HDR, RLE
bitmaps, ...) is put together by hand around a coded picture.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from tests.support.camera_files.base import CameraFile
from tests.support.camera_files.bmp import bmps
from tests.support.camera_files.heif import avifs, heics
from tests.support.camera_files.jpeg import jpegs
from tests.support.camera_files.png import pngs
from tests.support.camera_files.tiff import tiffs
from tests.support.camera_files.webp_gif import gifs, webps


def camera_files(picture: Image.Image) -> Iterator[CameraFile]:
    """Every kind of file, one after the other, showing `picture` upright.

    The picture should have an even width and height of at least 64 pixels.
    """
    picture = picture.convert("RGB")
    for of_a_format in (jpegs, pngs, webps, gifs, tiffs, bmps, avifs, heics):
        yield from of_a_format(picture)
