"""Files as devices and programs store them: what the header says, and which pixels come out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shared.errors import InvalidImage, UploadError
from shared.image_header import check_file
from tests.support.camera_files import CameraFile, camera_files
from tests.support.images import photograph
from worker.model.images import decode

LIMIT = 1_000_000
NOT_SUPPORTED = {
    "tiff-rgb-float-opencv": "no floats",
    "tiff-big-tiff": "Not an image of a supported type",
    "tiff-orientation-6-tiles": "in tiles",
}
"""What is refused, and in which words: docs/formats.md says why."""
NOT_QUITE = {"png-grey-trns": 0.5}
"""OpenCV ignores which grey is transparent in a PNG without colours."""

FILES = list(camera_files(Image.open(io.BytesIO(photograph())).resize((240, 320))))
SUPPORTED = [file for file in FILES if file.name not in NOT_SUPPORTED]


def named(file: CameraFile) -> str:
    return file.name


def difference_of(data: bytes, file: CameraFile) -> float:
    """Mean absolute difference of a channel between what is decoded and what the file shows."""
    decoded = decode(data, max_pixels=LIMIT)
    assert (decoded.height, decoded.width) == decoded.pixels.shape[:2] == file.pixels.shape[:2]
    return float(np.abs(decoded.pixels[..., ::-1].astype(int) - file.pixels).mean())


@pytest.mark.parametrize("file", SUPPORTED, ids=named)
def test_its_header_and_its_pixels_are_those_of_the_picture(file: CameraFile) -> None:
    height, width = file.pixels.shape[:2]
    header = check_file(file.data, max_pixels=LIMIT)
    assert header.content_type == file.content_type
    assert header.upright_size == (width, height)

    assert difference_of(file.data, file) <= NOT_QUITE.get(file.name, file.tolerance)


@pytest.mark.parametrize(("name", "words"), NOT_SUPPORTED.items())
def test_what_is_not_supported_is_refused_in_words(name: str, words: str) -> None:
    (file,) = (file for file in FILES if file.name == name)
    with pytest.raises(UploadError, match=words):
        check_file(file.data, max_pixels=LIMIT)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("file", SUPPORTED, ids=named)
def test_of_a_file_that_is_cut_short_nothing_is_made_up(file: CameraFile, kept: float) -> None:
    """It is refused, or only what follows the picture is missing."""
    cut = file.data[: int(len(file.data) * kept)]
    try:
        check_file(cut, max_pixels=LIMIT)
    except InvalidImage:
        return
    assert difference_of(cut, file) <= NOT_QUITE.get(file.name, file.tolerance)


@pytest.mark.parametrize("form", ["image/jpeg", "image/png", "image/heic"])
def test_a_picture_that_lacks_its_last_bytes_is_refused(form: str) -> None:
    plain = next(file for file in FILES if file.content_type == form)
    for missing in (1, 2, 20):
        with pytest.raises(InvalidImage, match="not complete"):
            check_file(plain.data[:-missing], max_pixels=LIMIT)
