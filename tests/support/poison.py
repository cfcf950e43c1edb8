"""Makes images that do harm: `tests.chaos.app` recognises them by the colour of the first pixel."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from tests.support.images import encoded

SLOW_SECONDS = float(os.environ.get("SLOW_SECONDS", "17"))
"""Longer than a lease: a healthy job that must not be taken for a lost one."""

POISON = {"kill": (1, 2, 3), "hang": (3, 2, 1), "raise": (2, 3, 1), "slow": (3, 1, 2)}
"""What the image does to its process, and its colour in BGR."""


def poison(kind: str) -> bytes:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:] = POISON[kind][::-1]
    return encoded(Image.fromarray(pixels), "PNG")
