"""Makes files with structures that cost a careless reader time or memory.

Most end in, or wrap, a small valid picture, so that a reader has a reason to read through them.
"""

from __future__ import annotations

from tests.support.hostile_files.base import Named
from tests.support.hostile_files.heif import isobmffs
from tests.support.hostile_files.jpeg import jpegs
from tests.support.hostile_files.png import pngs
from tests.support.hostile_files.tiff_bmp import bmps, tiffs
from tests.support.hostile_files.webp_gif import gifs, webps


def hostile_files(size_bytes: int) -> Named:
    """(name, file) for every format. Files whose point is to grow come close to `size_bytes`;
    those that are bad by what they declare stay small."""
    for of_a_format in (jpegs, pngs, webps, gifs, tiffs, bmps, isobmffs):
        yield from of_a_format(size_bytes)
