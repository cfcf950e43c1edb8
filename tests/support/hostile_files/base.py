"""Makes hostile files: what the modules of all formats share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

BIG = 7_000
"""49 megapixels are BIG x BIG: just below the gateway's default limit."""
HUGE = 0xFFFFFFFF

Named = Iterator[tuple[str, bytes]]


def times(unit: bytes, size: int) -> bytes:
    return unit * max(1, size // len(unit))


def ramp(side: int = 64) -> Image.Image:
    ramp = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) % 251
    return Image.fromarray(ramp.astype(np.uint8))
