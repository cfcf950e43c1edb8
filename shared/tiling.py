"""Decides how a large picture is cut into overlapping tiles. Arithmetic alone: gateways count with
it what workers cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from shared.errors import TooManyTiles

DEFAULT_IMGSZ = 640
PART_PASSES = 8
"""Forward passes at `DEFAULT_IMGSZ`, about, that one process does of a job with many tiles before
others get their turn."""
MIN_TILE, MAX_TILE = 256, 2048
"""Side of a tile in pixels of the original."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of a picture, in its pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """A picture's tiles, all of one size, in rows from the top."""

    size: int
    """Longest side that a tile may have; a picture that is lower or narrower has smaller ones."""
    overlap: float
    """Least share of a tile that its neighbour has as well, 0 to 0.5. Tiles are spread evenly."""
    width: int
    height: int

    @property
    def count(self) -> int:
        """0 for a picture that fits into one tile: it goes through the network whole."""
        number = self._number(self.width) * self._number(self.height)
        return number if number > 1 else 0

    @property
    def tiles(self) -> list[Tile]:
        if not self.count:
            return []
        width, height = min(self.size, self.width), min(self.size, self.height)
        columns, rows = self._starts(self.width), self._starts(self.height)
        return [Tile(x, y, width, height) for y in rows for x in columns]

    def passes(self) -> list[Tile]:
        """All that the network looks at: the picture as a whole, and the tiles."""
        return [Tile(0, 0, self.width, self.height), *self.tiles]

    def _number(self, length: int) -> int:
        if length <= self.size:
            return 1
        shared = int(self.size * self.overlap)
        return math.ceil((length - shared) / (self.size - shared))

    def _starts(self, length: int) -> list[int]:
        number = self._number(length)
        room = max(0, length - self.size)
        return [round(room * index / max(1, number - 1)) for index in range(number)]


def parts_of(tiling: Tiling | None, imgsz: int) -> int:
    """In how many parts a job is done whose picture is cut so: each of about `PART_PASSES`, the
    picture as a whole being one pass more."""
    if tiling is None or not tiling.count:
        return 1
    passes = tiling.count + 1
    work = passes * (imgsz / DEFAULT_IMGSZ) ** 2
    return max(1, min(passes, math.ceil(work / PART_PASSES)))


def passes_of(tiling: Tiling, part: int, parts: int) -> list[Tile]:
    """What one part of a job looks at: the picture as a whole is the first pass of the first
    part."""
    passes = tiling.passes()
    return passes[len(passes) * part // parts : len(passes) * (part + 1) // parts]


def tiling_of(
    width: int,
    height: int,
    *,
    tile: int | Literal["auto"],
    overlap: float,
    imgsz: int,
    max_tiles: int,
) -> Tiling:
    """The tiles of a picture, `width` x `height` pixels.

    `tile`: side of a tile. `auto`: as large as the network's input, `imgsz`, so that no pixel is
    lost; larger where that would be too many. `max_tiles`: at `DEFAULT_IMGSZ`; fewer are allowed at
    a larger `imgsz`. Raises `TooManyTiles`.
    """
    size = min(max(imgsz, MIN_TILE), MAX_TILE) if tile == "auto" else tile
    # A network's time grows with the area of its input.
    allowed = int(max_tiles / max(1, (imgsz / DEFAULT_IMGSZ) ** 2))
    while True:
        tiling = Tiling(size, overlap, width, height)
        if tiling.count <= allowed:
            return tiling
        if tile != "auto" or size == MAX_TILE:
            smaller = "a smaller imgsz, " if imgsz > DEFAULT_IMGSZ else ""
            larger = "larger tiles, " if size < MAX_TILE else ""
            raise TooManyTiles(
                f"Tiles of {size} pixels with an overlap of {overlap:g} would cut this picture "
                f"({width} x {height}) into {tiling.count:,}; at imgsz={imgsz} {allowed:,} are "
                f"allowed (MAX_TILES). Ask for {larger}{smaller}less overlap, or no tiles."
            )
        size = min(2 * size, MAX_TILE)
