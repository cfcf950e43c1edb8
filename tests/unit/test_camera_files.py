"""Files as devices and programs store them: their headers and their decoded pixels."""

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
"""Refused files, and a part of the error message. docs/formats.md has the reasons."""
NOT_QUITE = {"png-grey-trns": 0.5}
"""Allowed difference: OpenCV ignores which grey is transparent in a grey PNG."""

FILES = list(camera_files(Image.open(io.BytesIO(photograph())).resize((240, 320))))
SUPPORTED = [file for file in FILES if file.name not in NOT_SUPPORTED]


def named(file: CameraFile) -> str:
    return file.name


def difference_of(data: bytes, file: CameraFile) -> float:
    """Mean absolute difference between the decoded channels and those that the file shows."""
    decoded = decode(data, max_pixels=LIMIT)
    assert (decoded.height, decoded.width) == decoded.pixels.shape[:2] == file.pixels.shape[:2]
    return float(np.abs(decoded.pixels[..., ::-1].astype(int) - file.pixels).mean())


@pytest.mark.parametrize("file", SUPPORTED, ids=named)
def test_header_and_pixels_are_those_of_the_picture(file: CameraFile) -> None:
    height, width = file.pixels.shape[:2]
    header = check_file(file.data, max_pixels=LIMIT)
    assert header.content_type == file.content_type
    assert header.upright_size == (width, height)

    assert difference_of(file.data, file) <= NOT_QUITE.get(file.name, file.tolerance)


@pytest.mark.parametrize(("name", "words"), NOT_SUPPORTED.items())
def test_an_unsupported_file_is_refused_with_a_reason(name: str, words: str) -> None:
    (file,) = (file for file in FILES if file.name == name)
    with pytest.raises(UploadError, match=words):
        check_file(file.data, max_pixels=LIMIT)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("file", SUPPORTED, ids=named)
def test_no_pixels_are_made_up_for_a_file_that_is_cut_short(file: CameraFile, kept: float) -> None:
    """It is refused, unless only data after the picture is missing."""
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
