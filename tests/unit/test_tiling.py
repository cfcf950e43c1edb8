from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TooManyTiles
from shared.job.record import DetectParameters
from shared.tiling import MAX_TILE, MIN_TILE, Tiling

sides = st.integers(1, 12_000)
tilings = st.builds(
    Tiling, st.integers(MIN_TILE, MAX_TILE), st.floats(0, 0.5), width=sides, height=sides
)


@given(tilings)
def test_tiles_cover_the_picture_and_overlap_as_asked(tiling: Tiling) -> None:
    tiles = tiling.tiles
    assert len(tiles) == tiling.count
    if not tiles:
        assert max(tiling.width, tiling.height) <= tiling.size
        return
    assert len({(tile.width, tile.height) for tile in tiles}) == 1
    one = tiles[0]
    for length, side, starts in (
        (tiling.width, one.width, sorted({tile.x for tile in tiles})),
        (tiling.height, one.height, sorted({tile.y for tile in tiles})),
    ):
        assert side == min(tiling.size, length)
        assert starts[0] == 0
        assert starts[-1] + side == length
        shared = [before + side - after for before, after in pairwise(starts)]
        # Positions are whole pixels.
        assert all(pixels >= int(tiling.size * tiling.overlap) - 1 for pixels in shared)


def count(width: int, height: int, tile: int | str, **others: float) -> tuple[int, int]:
    parameters = DetectParameters.model_validate({"tile": tile, **others})
    tiling = parameters.tiling(width, height, 400)
    assert tiling
    return tiling.count, tiling.size


def test_a_photograph_of_12_megapixels() -> None:
    assert count(4000, 3000, 640) == (48, 640)
    assert count(4000, 3000, 1280) == (12, 1280)
    assert count(4000, 3000, 640, overlap=0) == (35, 640)


def test_auto_takes_tiles_as_large_as_the_input_of_the_network() -> None:
    assert count(4000, 3000, "auto") == (48, 640)
    assert count(4000, 3000, "auto", imgsz=1280) == (12, 1280)
    assert count(4000, 3000, "auto", imgsz=128) == (300, 256)


def test_a_picture_that_fits_into_one_tile_is_not_cut() -> None:
    assert count(640, 480, "auto") == (0, 640)
    assert count(640, 640, 640) == (0, 640)
    assert count(641, 480, "auto") == (2, 640)


def test_auto_takes_larger_tiles_where_there_would_be_too_many() -> None:
    assert count(11_000, 10_900, "auto") == (121, 1280)


def test_too_many_tiles_are_refused_with_what_to_do() -> None:
    with pytest.raises(TooManyTiles, match=r"12000 x 10000\) into 1,\d+; MAX_TILES allows 400"):
        count(12_000, 10_000, 320)


def test_without_tile_there_are_none() -> None:
    assert DetectParameters().tiling(4000, 3000, 400) is None
