"""What is found in tiles is put together: each thing once, whole, and nothing that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tiling import Tiling
from worker.model.geometry import Floats, rotated_iou
from worker.model.merging import Found, merged

Region = tuple[int, int, int, int]

LEFT, RIGHT = (0, 0, 640, 640), (512, 0, 1152, 640)
WHOLE = (0, 0, 1152, 640)


def found(region: Region, *boxes: Sequence[float], classes: Sequence[int] = ()) -> Found:
    """`boxes`: x1, y1, x2, y2 and perhaps a confidence, 0.5 unless given."""
    rows = [(*box, 0.5)[:5] for box in boxes]
    array = np.array(rows, np.float32).reshape(-1, 5)
    numbers = np.array(classes or [0] * len(rows), np.int32)
    return Found(region, array[:, :4], array[:, 4], numbers)


def boxes_of(passes: Sequence[Found], iou: float = 0.7, max_det: int = 300) -> list[list[float]]:
    return merged(passes, iou=iou, max_det=max_det).boxes.tolist()


def test_a_thing_that_two_tiles_see_is_found_once() -> None:
    passes = [found(LEFT, (530, 100, 600, 200, 0.6)), found(RIGHT, (532, 101, 601, 202, 0.8))]
    result = merged(passes, iou=0.7, max_det=300)
    assert result.boxes.tolist() == [[532, 101, 601, 202]]
    assert result.scores.tolist() == pytest.approx([0.8])


def test_of_a_thing_that_an_edge_cuts_the_whole_is_kept_though_the_piece_is_surer() -> None:
    passes = [found(LEFT, (560, 100, 640, 200, 0.9)), found(RIGHT, (560, 100, 720, 200, 0.4))]
    result = merged(passes, iou=0.7, max_det=300)
    assert result.boxes.tolist() == [[560, 100, 720, 200]]
    assert result.scores.tolist() == pytest.approx([0.9]), "somebody is sure of it"


def test_a_thing_that_no_tile_sees_whole_is_joined() -> None:
    passes = [found(LEFT, (300, 100, 640, 200)), found(RIGHT, (512, 102, 800, 201))]
    assert boxes_of(passes) == [[300, 100, 800, 201]]


def test_the_picture_as_a_whole_knows_large_things_better() -> None:
    whole = found(WHOLE, (295, 98, 810, 203, 0.3))
    passes = [whole, found(LEFT, (300, 100, 640, 200)), found(RIGHT, (512, 102, 800, 201))]
    assert boxes_of(passes) == [[295, 98, 810, 203]]


def test_a_piece_that_ends_before_the_edge_is_a_piece_all_the_same() -> None:
    passes = [found(WHOLE, (100, 50, 1100, 600, 0.4)), found(LEFT, (100, 50, 610, 600, 0.9))]
    assert boxes_of(passes) == [[100, 50, 1100, 600]]


def test_a_tile_knows_small_things_better_than_the_picture_as_a_whole() -> None:
    passes = [found(WHOLE, (98, 95, 125, 130, 0.8)), found(LEFT, (100, 100, 120, 130, 0.6))]
    assert boxes_of(passes) == [[100, 100, 120, 130]]


def test_a_small_thing_that_tiles_do_not_confirm_is_not_believed() -> None:
    small, large = (100, 100, 350, 250), (50, 50, 600, 600)
    panorama = (0, 0, 1400, 640)
    assert boxes_of([found(panorama, small), found(LEFT), found(RIGHT)]) == []
    assert boxes_of([found(panorama, large), found(LEFT), found(RIGHT)]) == [[50, 50, 600, 600]]
    # Here a tile looks hardly closer than the whole.
    assert boxes_of([found(WHOLE, small), found(LEFT), found(RIGHT)]) == [[100, 100, 350, 250]]


def test_a_crowd_stays_a_crowd() -> None:
    """Two people half in front of each other, IoU 0.54, both in both tiles."""
    crowd = (520, 100, 580, 300), (538, 100, 598, 300)
    assert len(boxes_of([found(LEFT, *crowd), found(RIGHT, *crowd)])) == 2


def test_things_of_other_classes_stay() -> None:
    passes = [
        found(LEFT, (530, 100, 600, 200), classes=[1]),
        found(RIGHT, (530, 100, 600, 200), classes=[2]),
    ]
    assert len(boxes_of(passes)) == 2


def test_a_piece_is_not_believed_if_the_tile_that_sees_it_whole_finds_nothing() -> None:
    passes = [found(LEFT, (560, 100, 640, 200), (10, 10, 50, 50)), found(RIGHT)]
    assert boxes_of(passes) == [[10, 10, 50, 50]]


def test_a_piece_within_a_larger_thing_is_part_of_it() -> None:
    """The picture as a whole has two boxes for what a tile has one for."""
    passes = [
        found(WHOLE, (100, 50, 1100, 600)),
        found(LEFT, (100, 50, 640, 600), (500, 200, 640, 500)),
        found(RIGHT, (512, 50, 1100, 600)),
    ]
    assert boxes_of(passes) == [[100, 50, 1100, 600]]


def test_max_det_counts_after_the_merge_and_keeps_the_surest() -> None:
    left = found(LEFT, (530, 100, 600, 200, 0.9), (10, 10, 60, 60, 0.3), (100, 10, 150, 60, 0.6))
    passes = [left, found(RIGHT, (530, 100, 600, 200, 0.9))]
    assert boxes_of(passes, max_det=2) == [[530, 100, 600, 200], [100, 10, 150, 60]]


def test_iou_separates_what_one_pass_may_find_twice() -> None:
    twice = found(LEFT, (100, 100, 200, 200, 0.9), (100, 100, 200, 160, 0.5))
    assert len(boxes_of([twice])) == 2
    assert boxes_of([twice], iou=0.5) == [[100, 100, 200, 200]]


def test_nothing_found_is_nothing() -> None:
    assert boxes_of([found(LEFT), found(RIGHT)]) == []


# -- more than boxes ------------------------------------------------------------------------------


def square(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def test_rotated_boxes_are_compared_as_they_lie() -> None:
    """Two parallel ships on a diagonal: their upright boxes overlap by more than half."""

    def ships(region: Region) -> Found:
        ends = np.array([[520, 100], [600, 180]]), np.array([[8, -8], [-8, 8]])
        corners = []
        for shift in (0, 20):
            (a, b), (one, other) = ends[0] + [shift, -shift], ends[1]
            corners.append([a + one, b + one, b + other, a + other])
        array = np.array(corners, np.float32)
        upright = [[*shape.min(axis=0), *shape.max(axis=0)] for shape in array]
        return replace(found(region, *upright), corners=array)

    result = merged([ships(LEFT), ships(RIGHT)], iou=0.5, max_det=300)
    assert len(result) == 2


def test_areas_of_rotated_boxes_are_right_where_edges_lie_on_one_line() -> None:
    """Half of one box is the other; OpenCV's function has errors there."""
    for angle in np.linspace(0, 2 * np.pi, 50):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        one = np.array(square(0, 0, 80, 40), np.float32) @ turn.T.astype(np.float32) + 900
        half = np.array(square(0, 0, 40, 40), np.float32) @ turn.T.astype(np.float32) + 900
        assert rotated_iou(one, half) == pytest.approx(0.5, abs=0.01)
        assert rotated_iou(one, one) == pytest.approx(1, abs=0.01)
        assert rotated_iou(one, half + 200) == 0


def test_pieces_of_a_rotated_box_are_joined() -> None:
    left = replace(
        found(LEFT, (400, 100, 640, 140)),
        corners=np.array([square(400, 100, 640, 140)], np.float32),
    )
    right = replace(
        found(RIGHT, (512, 100, 800, 140)),
        corners=np.array([square(512, 100, 800, 140)], np.float32),
    )
    corners = merged([left, right], iou=0.7, max_det=300).corners
    assert corners is not None
    np.testing.assert_allclose(corners[0].min(axis=0), [400, 100], atol=1)
    np.testing.assert_allclose(corners[0].max(axis=0), [800, 140], atol=1)


def test_outlines_of_pieces_are_joined() -> None:
    left = replace(
        found(LEFT, (400, 100, 640, 140)),
        outlines=[np.array(square(400, 100, 640, 140), np.float32)],
    )
    right = replace(
        found(RIGHT, (512, 100, 800, 140)),
        outlines=[np.array(square(512, 110, 800, 140), np.float32)],
    )
    (outline,) = merged([left, right], iou=0.7, max_det=300).outlines or ()
    np.testing.assert_allclose(outline.min(axis=0), [400, 100], atol=1.5)
    np.testing.assert_allclose(outline.max(axis=0), [800, 140], atol=1.5)
    x, y = outline.T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    assert area == pytest.approx(240 * 40 + 160 * 30, rel=0.02)


def test_of_each_keypoint_the_surest_is_kept_when_pieces_are_joined() -> None:
    left = replace(
        found(LEFT, (400, 100, 640, 200)),
        keypoints=np.array([[[420, 110, 0.9], [639, 150, 0.1]]], np.float32),
    )
    right = replace(
        found(RIGHT, (512, 100, 800, 200)),
        keypoints=np.array([[[513, 110, 0.2], [780, 150, 0.8]]], np.float32),
    )
    keypoints = merged([left, right], iou=0.7, max_det=300).keypoints
    assert keypoints is not None
    np.testing.assert_allclose(keypoints[0], [[420, 110, 0.9], [780, 150, 0.8]])


# -- any scene ------------------------------------------------------------------------------------

PICTURE = (3000, 2000)
SEEN = 0.15
"""Share of a thing that a detector has to see."""
SMALLEST = 10
"""Shorter side in pixels of the network's input that it can see."""


@given(seed=st.integers(0, 2**32 - 1), things=st.integers(1, 60))
def test_a_detector_that_sees_all_finds_each_thing_once(seed: int, things: int) -> None:
    """Things of 25 to 1,500 pixels, and a detector that misses by up to 1.5 of its pixels."""
    rng = np.random.default_rng(seed)
    truth = scene(rng, things)
    tiling = Tiling(640, 0.2, *PICTURE)
    regions = [(0, 0, *PICTURE)]
    regions += [(t.x, t.y, t.x + t.width, t.y + t.height) for t in tiling.tiles]
    passes = [seen_in(region, truth, rng) for region in regions]
    result = np.array(boxes_of(passes, max_det=3000))
    assert len(result) == len(truth)
    assert (iou(truth, result).max(axis=1) > 0.5).all()


def scene(rng: np.random.Generator, things: int) -> Floats:
    """Up to so many boxes that do not touch, some of them cut by the picture's edge."""
    width, height = PICTURE
    boxes: list[Floats] = []
    for _ in range(things * 10):
        across = np.exp(rng.uniform(np.log(25), np.log(1500)))
        down = min(across * rng.uniform(0.4, 2.5), 1500)
        x, y = rng.uniform(-0.1 * across, width - 50), rng.uniform(-0.1 * down, height - 50)
        box = np.array([max(0, x), max(0, y), min(width, x + across), min(height, y + down)])
        apart = [
            (box[:2] > other[2:] + 4).any() or (other[:2] > box[2:] + 4).any() for other in boxes
        ]
        if all(apart) and len(boxes) < things:
            boxes.append(box)
    return np.array(boxes, np.float32)


def seen_in(region: Region, truth: Floats, rng: np.random.Generator) -> Found:
    low, high = np.array(region[:2]), np.array(region[2:])
    clipped = np.concatenate([truth[:, :2].clip(low, high), truth[:, 2:].clip(low, high)], axis=1)
    pixel = max(high - low) / 640
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = (truth[:, 2:] - truth[:, :2]).prod(axis=1)
    seen = (sides.prod(axis=1) >= SEEN * whole) & (sides.min(axis=1) >= SMALLEST * pixel)
    boxes = clipped[seen] + rng.uniform(-1.5 * pixel, 1.5 * pixel, (seen.sum(), 4))
    scores = rng.uniform(0.3, 0.9, seen.sum())
    return Found(
        region,
        boxes.astype(np.float32),
        scores.astype(np.float32),
        np.zeros(seen.sum(), np.int32),
    )


def iou(first: Floats, second: Floats) -> Floats:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return np.asarray(both / (areas[0][:, None] + areas[1][None] - both))
