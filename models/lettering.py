"""Draws text: below bars, on labels, and on pages without a code."""

import string
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Pillow looks these up in the system's font folders; the last resort is its built-in font.
_FONTS = (
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"),
    *("DejaVuSansMono.ttf", "DejaVuSansCondensed.ttf"),
    *("LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf", "arial.ttf"),
)
_LETTERS = list(string.ascii_lowercase + "eeeaattoinsr" + string.digits)
_PAGE_LINES = 48  # rendered once and reused: drawing glyphs is the slowest step of a page


@lru_cache(maxsize=256)
def _font(index: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(_FONTS[index], size)
    except OSError:
        return ImageFont.load_default(size)


def text_mask(text: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Render `text` in a random font of `size` px: float32 (height, width), 1 where inked."""
    font = _font(int(rng.integers(len(_FONTS))), max(6, size))
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


def words(rng: np.random.Generator, count: int) -> str:
    """Return `count` made-up words, some capitalised, some all capitals."""
    made = []
    for _ in range(count):
        word = "".join(rng.choice(_LETTERS, int(rng.integers(2, 10))))
        made.append(str(rng.choice([word, word, word.capitalize(), word.upper()])))
    return " ".join(made)


@lru_cache(maxsize=1)
def _line_pool() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    return tuple(
        text_mask(words(rng, int(rng.integers(3, 9))), 28, rng) for _ in range(_PAGE_LINES)
    )


def page_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Fill a page with paragraphs: float32 (height, width), 1 where inked."""
    page = np.zeros((height, width), np.float32)
    pool = _line_pool()
    size = int(np.exp(rng.uniform(np.log(7), np.log(max(8, min(36, height / 4))))))
    spacing = rng.uniform(1.2, 1.9)
    margin = int(rng.uniform(0, 0.08) * width)
    y = margin + 1
    while y + size < height - margin:
        if rng.random() < 0.12:
            y += size
            continue
        line = pool[int(rng.integers(len(pool)))]
        scale = size / line.shape[0]
        line = cv2.resize(line, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        room = width - 2 * margin
        if line.shape[1] < room and rng.random() < 0.8:
            line = np.tile(line, (1, 1 + room // line.shape[1]))
        line = line[: height - y, : max(4, room)]
        page[y : y + line.shape[0], margin : margin + line.shape[1]] = line
        y += int(size * spacing)
    return page
