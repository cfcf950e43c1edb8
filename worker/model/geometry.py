"""Areas and intersections of boxes, upright (x1, y1, x2, y2) and rotated (corners)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def extent_of(boxes: Floats) -> Floats:
    """The rectangle around N x 4 boxes."""
    corners = [boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)]
    return np.asarray(np.concatenate(corners), np.float32)


def rotated_iou(one: Floats, other: Floats, within: Floats | None = None) -> float:
    """IoU of two convex shapes, 4 x 2 each, perhaps of what lies within a rectangle."""
    if within is not None:
        x1, y1, x2, y2 = within
        frame = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
        one, other = _common(one, frame), _common(other, frame)
    areas = abs(_signed_area(one)), abs(_signed_area(other))
    both = abs(_signed_area(_common(one, other))) if min(areas) > 0 else 0.0
    return both / (sum(areas) - both) if both > 0 else 0.0


def _common(one: Floats, other: Floats) -> Floats:
    """What two convex shapes, N x 2 each, have in common: M x 2, none if nothing.

    Cuts one shape at each edge of the other (Sutherland and Hodgman). OpenCV's
    `intersectConvexConvex` gives wrong areas where edges lie on one line.
    """
    shape = [(float(x), float(y)) for x, y in one]
    corners = [(float(x), float(y)) for x, y in other]
    if _signed_area(other) < 0:
        corners.reverse()
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in shape]
        cut = []
        for number, (point, side) in enumerate(zip(shape, sides, strict=True)):
            before, side_before = shape[number - 1], sides[number - 1]
            if side_before * side < 0:
                share = side_before / (side_before - side)
                cut.append(
                    (
                        before[0] + share * (point[0] - before[0]),
                        before[1] + share * (point[1] - before[1]),
                    )
                )
            if side >= 0:
                cut.append(point)
        shape = cut
    return np.array(shape, np.float32).reshape(-1, 2)


def _signed_area(shape: Floats) -> float:
    if len(shape) < 3:
        return 0.0
    x, y = shape.astype(np.float64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def clip(boxes: Floats, region: Floats) -> Floats:
    """What of N x 4 boxes lies within a rectangle."""
    low, high = region[:2], region[2:]
    clipped = np.concatenate([boxes[:, :2].clip(low, high), boxes[:, 2:].clip(low, high)], axis=1)
    return np.asarray(clipped, np.float32)


def areas_of(boxes: Floats) -> Floats:
    """Of N x 4 boxes: N."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))


def intersections(first: Floats, second: Floats) -> Floats:
    """Areas that N x 4 and M x 4 boxes have in common: N x M."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray((high - low).clip(0).prod(axis=2))
