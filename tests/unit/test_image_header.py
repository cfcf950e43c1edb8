"""Headers of the accepted formats: type, size and orientation; what is refused."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from shared.errors import InvalidImage, TooManyPixels, UnsupportedMediaType
from shared.image_header import check_file, read_header
from tests.support.images import encoded, noise
from tests.support.largest_pictures import WEIGHTS, largest_pictures

LIMIT = 50_000_000


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_reads_type_and_size_of_every_accepted_format(form: str) -> None:
    header = check_file(encoded(noise(40, 30), form), max_pixels=LIMIT)
    assert header.content_type == f"image/{form.lower()}"
    assert (header.width, header.height) == (40, 30)


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\n1 0 obj\n",
        b"MZ\x90\x00" + bytes(200),
        b"\x7fELF" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"GIF",
        b"\xff\xd8",
        b"",
    ],
    ids=["pdf", "exe", "elf", "zip", "svg", "gif-stub", "jpeg-stub", "empty"],
)
def test_refuses_other_files(content: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_file(content, max_pixels=LIMIT)


def test_refuses_a_decompression_bomb_by_its_header() -> None:
    bomb = png_declaring(50_000, 50_000)
    assert len(bomb) < 1024
    with pytest.raises(TooManyPixels, match="50000 x 50000"):
        check_file(bomb, max_pixels=LIMIT)


def test_the_limit_itself_is_allowed() -> None:
    image = encoded(noise(40, 30), "PNG")
    assert check_file(image, max_pixels=1200).width == 40
    with pytest.raises(TooManyPixels):
        check_file(image, max_pixels=1199)


def test_kinds_that_take_more_memory_may_have_fewer_pixels() -> None:
    for kind, image in largest_pictures(160, 120):
        weight = next((n for words, n in WEIGHTS.items() if words in kind), 1)
        header = read_header(image, max_pixels=LIMIT)
        assert header.weight == weight, kind
        allowed = weight * header.width * header.height
        assert read_header(image, max_pixels=allowed) == header
        with pytest.raises(TooManyPixels):
            read_header(image, max_pixels=allowed - 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_refuses_a_file_that_ends_early(form: str, kept: float) -> None:
    whole = encoded(noise(200, 150), form)
    with pytest.raises(InvalidImage):
        check_file(whole[: int(len(whole) * kept)], max_pixels=LIMIT)


def test_a_thumbnail_in_the_exif_block_does_not_hide_a_missing_end() -> None:
    thumbnail = encoded(noise(16, 16), "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + thumbnail
    whole = encoded(noise(200, 150), "JPEG", exif=exif)
    assert check_file(whole, max_pixels=LIMIT).width == 200
    with pytest.raises(InvalidImage):
        check_file(whole[: len(whole) // 2], max_pixels=LIMIT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_size_follows_exif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    header = check_file(encoded(noise(40, 30), "JPEG", exif=exif), max_pixels=LIMIT)
    assert header.orientation == orientation
    assert header.upright_size == ((40, 30) if orientation < 5 else (30, 40))


def png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(64))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
