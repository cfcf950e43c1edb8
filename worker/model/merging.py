"""Merges what was found in the overlapping tiles of a picture, and in the picture as a whole.

A detection in one tile and one in another are the same thing if they agree where both tiles look:
cut to the rectangle that the tiles share, their boxes have an IoU of `SAME_IOU` or more. That holds
for a thing that both see whole, for one that a tile's edge cuts, and for one that is larger than a
tile. Of each tile at most one detection can be the same thing, so that a crowd stays a crowd. Of a
thing that is seen whole somewhere the pieces are dropped; of others they are joined. A piece at the
edge of a tile is not believed if another tile sees its whole place and finds nothing there; nor is
a small thing that only the picture as a whole shows.
Why not non-maximum suppression: docs/decisions/0011-tiles.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.model.geometry import Floats, areas_of, clip, extent_of, intersections, rotated_iou

MOST = 20_000
"""Detections that are merged, the surest of all; so many take some seconds."""
SAME_IOU = 0.5
"""IoU, within what two passes share, from which two boxes are one thing."""
LEAST_SHARE = 0.1
"""Share of the smaller of two boxes that must lie within what their passes share. Slivers agree by
chance."""
EDGE = 0.015
"""How near to its tile's edge, as a share of the tile's side, a box is taken to be cut by it."""
SMALL = 0.5
"""Share of a tile's side up to which the tile knows better whether a thing is there than the
picture as a whole."""
CLOSER = 2
"""How many times closer than the picture as a whole a tile must look for that."""
COVERED = 0.7
"""Share of a cut piece within a larger thing of its class from which it is a part of that thing."""


@dataclass(slots=True)
class Found:
    """What one pass found, in pixels of the whole picture. N detections."""

    region: tuple[int, int, int, int]
    """What the pass looked at: x1, y1, x2, y2."""
    boxes: Floats
    """N x 4: x1, y1, x2, y2; of rotated boxes, the upright rectangles around them."""
    scores: Floats
    classes: NDArray[np.int32]
    corners: Floats | None = None
    """N x 4 x 2, of rotated boxes."""
    keypoints: Floats | None = None
    """N x K x 2 or 3: x, y and perhaps confidence."""
    outlines: list[Floats] | None = None
    """Of masks: N arrays of M x 2."""

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> Found:
        """The detections with these numbers."""
        numbers = np.asarray(numbers, np.int64)
        return Found(
            self.region,
            self.boxes[numbers],
            self.scores[numbers],
            self.classes[numbers],
            None if self.corners is None else self.corners[numbers],
            None if self.keypoints is None else self.keypoints[numbers],
            None if self.outlines is None else [self.outlines[number] for number in numbers],
        )


def merged(passes: Sequence[Found], *, iou: float, max_det: int) -> Found:
    """All that was found, each thing once, the most certain first.

    `passes`: of at least one tile or picture. `iou`: above which two things of one class are taken
    for one in the end, as within one pass. `max_det`: how many to keep.
    """
    everything = _concatenated(passes)
    pass_of = np.repeat(np.arange(len(passes)), [len(found) for found in passes])
    surest = np.argsort(-everything.scores, kind="stable")[:MOST]
    everything, pass_of = everything.take(surest), pass_of[surest]
    regions = np.array([found.region for found in passes], np.float32)
    things = _same_things(everything, pass_of, regions)
    cut = _cut(everything.boxes, regions[pass_of], extent_of(regions))
    made = [
        _joined(everything, thing, pass_of, regions, cut)
        for thing in things
        if not _refuted(everything, thing, pass_of, regions, cut)
    ]
    result = _concatenated([one for one, _ in made], everything)
    pieces = np.array([piece for _, piece in made], bool)
    result = result.take(_not_covered(result, pieces))
    return result.take(_suppressed(result, iou, max_det))


def _cut(boxes: Floats, regions: Floats, picture: Floats) -> NDArray[np.bool_]:
    """Which boxes reach an edge of their region that is not an edge of the picture: N x 4."""
    margin = _margins(regions)[:, None]
    inner = regions != picture
    low = boxes[:, :2] <= regions[:, :2] + margin
    high = boxes[:, 2:] >= regions[:, 2:] - margin
    return np.asarray(inner & np.concatenate([low, high], axis=1))


def _margins(regions: Floats) -> Floats:
    sides = (regions[:, 2:] - regions[:, :2]).max(axis=1)
    return np.asarray(np.maximum(2, EDGE * sides), np.float32)


def _same_things(everything: Found, pass_of: NDArray[np.int64], regions: Floats) -> list[list[int]]:
    """Numbers of detections, grouped by what they are detections of."""
    agreements = sorted(_agreements(everything, pass_of, regions), reverse=True)
    group_of = list(range(len(everything)))
    groups = [[number] for number in group_of]
    for _, one, other in agreements:
        first, second = groups[group_of[one]], groups[group_of[other]]
        if first is second:
            continue
        # Two detections of one pass are two things.
        if {int(pass_of[n]) for n in first} & {int(pass_of[n]) for n in second}:
            continue
        for number in second:
            group_of[number] = group_of[one]
        first += second
        second.clear()
    return [group for group in groups if group]


def _agreements(
    everything: Found, pass_of: NDArray[np.int64], regions: Floats
) -> Iterator[tuple[float, int, int]]:
    """Pairs of detections of two passes that agree where both looked, and how well."""
    numbers = [np.flatnonzero(pass_of == index) for index in range(len(regions))]
    for one, region in enumerate(regions):
        left_top = np.maximum(region[:2], regions[one + 1 :, :2])
        right_bottom = np.minimum(region[2:], regions[one + 1 :, 2:])
        for near in np.flatnonzero((left_top < right_bottom).all(axis=1)):
            shared = np.concatenate([left_top[near], right_bottom[near]])
            first, second = numbers[one], numbers[one + 1 + near]
            if len(first) and len(second):
                yield from _pairs(everything, first, second, shared)


def _pairs(
    everything: Found, first: NDArray[np.int64], second: NDArray[np.int64], shared: Floats
) -> Iterator[tuple[float, int, int]]:
    """The pairs of detections, one of `first` and one of `second`, that agree in `shared`."""
    boxes, classes = everything.boxes, everything.classes
    clipped_first, clipped_second = clip(boxes[first], shared), clip(boxes[second], shared)
    within_first, within_second = areas_of(clipped_first), areas_of(clipped_second)
    both = intersections(clipped_first, clipped_second)
    union = within_first[:, None] + within_second[None] - both
    smaller = np.minimum(areas_of(boxes[first])[:, None], areas_of(boxes[second])[None])
    share = np.minimum(within_first[:, None], within_second[None])
    agree = (
        (classes[first][:, None] == classes[second][None])
        & (both >= SAME_IOU * union)
        & (share > LEAST_SHARE * smaller)
    )
    for row, column in zip(*np.nonzero(agree), strict=True):
        one, other = int(first[row]), int(second[column])
        how_well = float(both[row, column] / union[row, column])
        if everything.corners is not None:
            corners = everything.corners[[one, other]]
            how_well = rotated_iou(corners[0], corners[1], shared)
            if how_well < SAME_IOU:
                continue
        yield how_well, one, other


def _refuted(
    everything: Found,
    thing: list[int],
    pass_of: NDArray[np.int64],
    regions: Floats,
    cut: NDArray[np.bool_],
) -> bool:
    """Whether a better witness has found nothing of the kind there: of a piece that edges cut, a
    tile that sees its whole place; of a small thing that was found in the picture as a whole, a
    tile that sees it closer."""
    extent, picture = extent_of(everything.boxes[thing]), extent_of(regions)
    coarse = (regions == picture).all(axis=1)
    margin = 2 * _margins(regions)[:, None]
    low = (regions[:, :2] <= extent[:2] - margin) | (regions[:, :2] == picture[:2])
    high = (regions[:, 2:] >= extent[2:] + margin) | (regions[:, 2:] == picture[2:])
    witnesses = low.all(axis=1) & high.all(axis=1) & ~coarse
    witnesses[pass_of[thing]] = False
    if coarse[pass_of[thing]].all():
        sides = (regions[:, 2:] - regions[:, :2]).max(axis=1)
        witnesses &= (extent[2:] - extent[:2]).max() <= SMALL * sides
        witnesses &= CLOSER * sides <= sides.max()
    elif not cut[thing].any(axis=1).all():
        return False
    return bool(witnesses.any())


def _joined(
    everything: Found,
    thing: list[int],
    pass_of: NDArray[np.int64],
    regions: Floats,
    cut: NDArray[np.bool_],
) -> tuple[Found, bool]:
    """One detection of all those of a thing, and whether it is a piece that every pass has cut."""
    boxes, scores = everything.boxes[thing], everything.scores[thing]
    of_pass = regions[pass_of[thing]]
    # A piece may end before the edge. But a thing that another pass sees beyond the edge is cut.
    extent = extent_of(boxes)
    margin = (_margins(of_pass) + _margins(of_pass).max())[:, None]
    beyond_low = of_pass[:, :2] - extent[:2] > margin
    beyond_high = extent[2:] - of_pass[:, 2:] > margin
    partial = cut[thing].any(axis=1) | beyond_low.any(axis=1) | beyond_high.any(axis=1)
    one = everything.take(thing)
    if not partial.all():
        # Of those that see it whole, the one that looked closest.
        whole = np.flatnonzero(~partial)
        sides = (of_pass[whole, 2:] - of_pass[whole, :2]).max(axis=1)
        best = whole[np.lexsort((-scores[whole], sides))[0]]
        result = one.take([best])
    else:
        result = _union(one)
    result.scores = scores.max(keepdims=True)
    return result, bool(partial.all())


def _union(pieces: Found) -> Found:
    """One detection around all of these."""
    best = int(pieces.scores.argmax())
    result = pieces.take([best])
    if len(pieces) == 1:
        return result
    result.boxes = extent_of(pieces.boxes)[None]
    if pieces.corners is not None:
        around = cv2.minAreaRect(pieces.corners.reshape(-1, 2))
        result.corners = np.asarray(cv2.boxPoints(around), np.float32)[None]
    if pieces.keypoints is not None and pieces.keypoints.shape[2] == 3:
        surest = pieces.keypoints[..., 2].argmax(axis=0)
        result.keypoints = pieces.keypoints[surest, np.arange(len(surest))][None]
    if pieces.outlines is not None:
        result.outlines = [_joined_outline(pieces.outlines, result.boxes[0])]
    return result


OUTLINE_SIDE = 1024
"""Longest side of the drawing in which outlines are joined."""


def _joined_outline(outlines: list[Floats], box: Floats) -> Floats:
    """The outline of the area that any of them surrounds: M x 2."""
    width, height = box[2:] - box[:2]
    scale = min(1.0, OUTLINE_SIDE / max(width, height, 1))
    corner = box[:2]
    canvas = np.zeros((int(height * scale) + 3, int(width * scale) + 3), np.uint8)
    for outline in outlines:
        if len(outline) > 2:
            points = np.round((outline - corner) * scale).astype(np.int32) + 1
            cv2.fillPoly(canvas, [points], 255)
    found, _ = cv2.findContours(canvas, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return max(outlines, key=len)
    # As Ultralytics does with a mask of several areas.
    points = np.concatenate([contour.reshape(-1, 2) for contour in found])
    return np.asarray((points - 1) / scale + corner, np.float32)


def _not_covered(things: Found, pieces: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of all but the pieces that lie within a larger thing of their class."""
    areas = areas_of(things.boxes)
    keep = np.ones(len(things), bool)
    for number in np.flatnonzero(pieces):
        larger = (things.classes == things.classes[number]) & (areas > areas[number])
        if larger.any():
            within = intersections(things.boxes[number][None], things.boxes[larger])[0]
            keep[number] = not (within >= COVERED * areas[number]).any()
    return np.flatnonzero(keep)


def _suppressed(things: Found, iou: float, max_det: int) -> NDArray[np.int64]:
    """Numbers after non-maximum suppression within each class, the most certain first."""
    order = np.argsort(-things.scores, kind="stable")
    areas = areas_of(things.boxes)
    keep: list[int] = []
    alive = np.ones(len(things), bool)
    for number in order:
        if len(keep) == max_det:
            break
        if not alive[number]:
            continue
        keep.append(int(number))
        alive[number] = False
        rivals = np.flatnonzero(alive & (things.classes == things.classes[number]))
        both = intersections(things.boxes[number][None], things.boxes[rivals])[0]
        overlap = both / np.maximum(areas[number] + areas[rivals] - both, 1e-9)
        if things.corners is not None:
            for place in np.flatnonzero(overlap > 0):
                pair = things.corners[[number, rivals[place]]]
                overlap[place] = rotated_iou(pair[0], pair[1])
        alive[rivals[overlap > iou]] = False
    return np.array(keep, np.int64)


def _concatenated(founds: Sequence[Found], like: Found | None = None) -> Found:
    if not founds:
        assert like is not None  # noqa: S101
        return like.take([])

    def together(name: str) -> Any:
        parts = [getattr(found, name) for found in founds]
        return None if parts[0] is None else np.concatenate(parts)

    outlines = founds[0].outlines
    if outlines is not None:
        outlines = [outline for found in founds for outline in found.outlines or ()]
    return Found(
        founds[0].region,
        together("boxes"),
        together("scores"),
        together("classes"),
        together("corners"),
        together("keypoints"),
        outlines,
    )
