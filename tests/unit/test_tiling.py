from __future__ import annotations

import json
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
    with pytest.raises(
        TooManyTiles, match=r"12000 x 10000\) into 1,\d+; at imgsz=640 400 are allowed"
    ):
        count(12_000, 10_000, 320)


def test_without_tile_there_are_none() -> None:
    assert DetectParameters().tiling(4000, 3000, 400) is None


def test_a_larger_input_of_the_network_allows_fewer_tiles() -> None:
    """A pass at 1,920 takes nine times as long as one at 640."""
    assert count(4000, 3000, "auto", imgsz=1280) == (12, 1280)
    with pytest.raises(TooManyTiles, match=r"imgsz=1920 44 are allowed.*a smaller imgsz"):
        count(4000, 3000, 640, imgsz=1920)


def test_without_tiles_a_record_is_as_before_there_were_any() -> None:
    """Workers of an earlier version refuse parameters that they do not know."""
    assert set(json.loads(DetectParameters().as_json())) == {
        *("conf", "iou", "imgsz", "max_det", "classes", "annotate")
    }
    tiled = DetectParameters(tile=640, overlap=0.3)
    assert DetectParameters.model_validate_json(tiled.as_json()) == tiled
