"""Draws what is behind and between the codes: photographs, surfaces and things that resemble codes.

The look-alikes (pages, grids, stripes, keyboards, facades, chessboards ...) are never labelled:
they teach the model what is not a code.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from lettering import page_mask, text_mask, words

Rng = np.random.Generator
Image = np.ndarray  # uint8 (height, width, 3)


def random_colour(rng: Rng, low: int = 0, high: int = 256) -> np.ndarray:
    """Return a BGR colour, float32; half of them are nearly grey, as most printed things are."""
    if rng.random() < 0.5:
        grey = rng.uniform(low, high) + rng.normal(0, 6, 3)
        return np.clip(grey, 0, 255).astype(np.float32)
    return rng.uniform(low, high, 3).astype(np.float32)


def background(
    height: int, width: int, rng: Rng, photos: Sequence[Image], photo_share: float
) -> Image:
    """Draw a background: a photograph (where there are any), a surface or a look-alike."""
    if photos and rng.random() < photo_share:
        return _photo_crop(height, width, rng, photos)
    if rng.random() < 0.56:
        return surface(height, width, rng)
    return look_alike(height, width, rng)


def surface(height: int, width: int, rng: Rng) -> Image:
    """Draw a plain, shaded, grainy, cloudy or streaked surface."""
    base = random_colour(rng, 30, 256)
    kind = rng.integers(5)
    image = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    if kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        ramp = np.cos(angle) * x / width + np.sin(angle) * y / height
        image = image + ramp[..., None] * (random_colour(rng) - base)
    elif kind >= 2:
        # Noise of several scales; stretched along one axis it becomes wood or brushed metal.
        stretch = rng.uniform(4, 40) if kind == 4 else 1.0
        total = np.zeros((height, width), np.float32)
        for cell in (2, 6, 20, 70):
            rows, columns = 2 + height // cell, 2 + int(width / (cell * stretch))
            noise = rng.normal(0, 1, (rows, columns)).astype(np.float32)
            total += cv2.resize(noise, (width, height)) * rng.uniform(0, 1)
        if rng.random() < 0.5 and height == width:
            total = total.T
        image = image + total[..., None] * rng.uniform(2, 25)
    return np.clip(image, 0, 255).astype(np.uint8)


def look_alike(height: int, width: int, rng: Rng) -> Image:
    """Draw something with edges like those of codes that is no code."""
    mask = _PATTERNS[int(rng.integers(len(_PATTERNS)))](height, width, rng)
    ink, paper = random_colour(rng, 0, 110), random_colour(rng, 140, 256)
    if rng.random() < 0.3:
        ink, paper = paper, ink
    return (paper + mask[..., None] * (ink - paper)).clip(0, 255).astype(np.uint8)


def _photo_crop(height: int, width: int, rng: Rng, photos: Sequence[Image]) -> Image:
    photo = photos[int(rng.integers(len(photos)))]
    scale = max(height / photo.shape[0], width / photo.shape[1])
    # From the whole picture down to a detail seen at twice its size.
    scale = float(np.exp(rng.uniform(np.log(scale), np.log(max(scale * 1.2, 1.3)))))
    photo = cv2.resize(
        photo,
        (max(width, round(photo.shape[1] * scale)), max(height, round(photo.shape[0] * scale))),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    y = int(rng.integers(photo.shape[0] - height + 1))
    x = int(rng.integers(photo.shape[1] - width + 1))
    crop = photo[y : y + height, x : x + width]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


def _stripes(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw regular stripes: blinds, fences, radiators, piano keys. Real bars vary in width."""
    period = int(np.exp(rng.uniform(np.log(4), np.log(60))))
    duty = rng.uniform(0.2, 0.8)
    row = ((np.arange(max(height, width)) % period) < duty * period).astype(np.float32)
    if rng.random() < 0.5:
        return np.broadcast_to(row[:width], (height, width)).copy()
    return np.broadcast_to(row[:height, None], (height, width)).copy()


def _shelf(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw book spines: bars of many widths and many tones, unlike a code's two."""
    page, x = np.zeros((height, width), np.float32), 0
    while x < width:
        step = int(rng.integers(5, 40))
        top = int(rng.uniform(0, 0.3) * height)
        page[top:, x : x + step] = rng.random()
        page[top:, x : x + 1] = 1
        x += step
    return page


def _grid(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw ruled lines: tables, tiles, bricks, graph paper."""
    page = np.zeros((height, width), np.float32)
    cell_y, cell_x = (int(v) for v in np.exp(rng.uniform(np.log(5), np.log(70), 2)))
    line = int(rng.integers(1, max(2, min(cell_x, cell_y) // 4 + 1)))
    for index, y in enumerate(range(0, height, cell_y)):
        page[y : y + line] = 1
        start = cell_x // 2 if index % 2 and line > 1 else 0
        for x in range(start, width, cell_x):
            page[y : y + cell_y, x : x + line] = 1
    return page


def _chequered(height: int, width: int, rng: Rng) -> np.ndarray:
    cell = int(np.exp(rng.uniform(np.log(4), np.log(60))))
    y, x = np.mgrid[0:height, 0:width] // cell
    return ((x + y) % 2).astype(np.float32)


def _mosaic(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw cells of random tone or random size: pixel art, mosaics, crosswords, blocks."""
    cell = int(rng.integers(4, 40))
    values = rng.random((height // cell + 1, width // cell + 1)).astype(np.float32)
    if rng.random() < 0.4:
        values = (values < rng.uniform(0.1, 0.3)).astype(np.float32)
    page = np.kron(values, np.ones((cell, cell), np.float32))[:height, :width]
    if rng.random() < 0.5:
        page[::cell] = 1
        page[:, ::cell] = 1
    return page


def _tiles(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw rows of separate boxes, some lettered: keyboards, facades, calendars, app icons."""
    page = np.zeros((height, width), np.float32)
    cell = int(rng.integers(12, 80))
    gap = max(1, int(cell * rng.uniform(0.08, 0.45)))
    lettered, filled = rng.random() < 0.5, rng.random() < 0.6
    for y in range(gap, height - cell // 2, cell):
        for x in range(gap, width - cell // 2, cell):
            corner = (x + cell - gap, y + cell - gap)
            cv2.rectangle(page, (x, y), corner, rng.uniform(0.6, 1), -1 if filled else 1)
            if lettered:
                glyph = text_mask(chr(int(rng.integers(65, 91))), cell // 3, rng)
                room = page[y + 3 : y + 3 + glyph.shape[0], x + 3 : x + 3 + glyph.shape[1]]
                glyph = glyph[: room.shape[0], : room.shape[1]]
                room += glyph * ((0.0 if filled else 1.0) - room)
    return page


def _dots(height: int, width: int, rng: Rng) -> np.ndarray:
    page = np.zeros((height, width), np.float32)
    cell = int(rng.integers(5, 40))
    radius = max(1, int(cell * rng.uniform(0.15, 0.48)))
    for y in range(cell // 2, height, cell):
        for x in range(cell // 2, width, cell):
            cv2.circle(page, (x, y), radius, 1.0, -1)
    return page


def _headline(height: int, width: int, rng: Rng) -> np.ndarray:
    """Draw a few words in large type, and squares inside squares as logos have them."""
    page = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 6))):
        text = text_mask(words(rng, int(rng.integers(1, 3))), int(rng.integers(14, 90)), rng)
        text = text[:height, :width]
        y = int(rng.integers(height - text.shape[0] + 1))
        x = int(rng.integers(width - text.shape[1] + 1))
        page[y : y + text.shape[0], x : x + text.shape[1]] = text
    for _ in range(int(rng.integers(0, 4))):
        side = int(rng.integers(10, max(11, min(height, width) // 2)))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        for inset, tone in ((0, 1.0), (0.15, 0.0), (0.3, 1.0))[: int(rng.integers(1, 4))]:
            a, b = int(side * inset), int(side * (1 - inset))
            cv2.rectangle(page, (x + a, y + a), (x + b, y + b), tone, -1)
    return page


_PATTERNS = (
    *(page_mask, page_mask, _headline),
    *(_stripes, _stripes, _shelf, _grid, _chequered, _mosaic, _tiles, _tiles, _dots),
)
