"""Draws detections with Ultralytics' own drawing code, at the size that is sent to the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.model.images import Pixels, fit_within

WHITE_REPLACEMENT_RGB = (255, 112, 31)


def replace_white() -> None:
    """Replace the third class' colour: lines in near-white are invisible on paper and sky."""
    from ultralytics.utils.plotting import colors

    colors.palette[2] = WHITE_REPLACEMENT_RGB


AREA_OPACITY = 0.5
"""As Ultralytics draws masks."""


def draw(
    result: Any,
    pixels: Pixels,
    max_side: int,
    outlines: Sequence[NDArray[np.float32]] | None = None,
) -> Pixels:
    """Draw an Ultralytics `Results` on its picture.

    `pixels`: the H x W x 3 uint8 BGR picture of `result`. `outlines`: of areas to fill, M x 2 each
    in its pixels, one for each box; for a `result` without masks. Returns one like it with its
    longer side at most `max_side` pixels; 0 leaves it at full size.
    """
    canvas = fit_within(pixels, max_side)
    if outlines:
        canvas = _with_areas(canvas, outlines, result.boxes.cls.int().tolist(), pixels.shape)
    if canvas is not pixels and result.masks is None:
        height, width = canvas.shape[:2]
        factor_x, factor_y = width / pixels.shape[1], height / pixels.shape[0]
        result = scaled_result(result, canvas, factor_x, factor_y)
        return np.asarray(result.plot(), np.uint8)
    return fit_within(np.asarray(result.plot(), np.uint8), max_side)


def scaled_result(result: Any, canvas: Pixels, factor_x: float, factor_y: float) -> Any:
    """Copy a `Results` without masks onto `canvas`, its picture resized by `factor_x` and
    `factor_y`."""
    copy = result.new()
    copy.orig_img = canvas
    copy.orig_shape = canvas.shape[:2]
    if result.boxes is not None:
        boxes = result.boxes.data.clone()
        boxes[:, [0, 2]] *= factor_x
        boxes[:, [1, 3]] *= factor_y
        copy.update(boxes=boxes)
    if result.obb is not None:
        boxes = result.obb.data.clone()
        boxes[:, 0] *= factor_x
        boxes[:, 1] *= factor_y
        boxes[:, 2:4] *= (factor_x + factor_y) / 2  # they differ by the rounding of the size alone
        copy.update(obb=boxes)
    if result.keypoints is not None:
        points = result.keypoints.data.clone()
        points[..., 0] *= factor_x
        points[..., 1] *= factor_y
        from ultralytics.engine.results import Keypoints

        copy.keypoints = Keypoints(points, copy.orig_shape)
    if result.probs is not None:
        copy.update(probs=result.probs.data)
    return copy


def _with_areas(
    canvas: Pixels,
    outlines: Sequence[NDArray[np.float32]],
    classes: list[int],
    shape: tuple[int, ...],
) -> Pixels:
    """Copy `canvas` and fill areas on it in the colours of their classes. `outlines`: in pixels of
    the picture of `shape` from which `canvas` was resized."""
    from ultralytics.utils.plotting import colors

    scale = np.array([canvas.shape[1] / shape[1], canvas.shape[0] / shape[0]])
    filled = canvas.copy()
    for outline, number in zip(outlines, classes, strict=True):
        points = np.round(outline * scale).astype(np.int32)
        cv2.fillPoly(filled, [points], colors(number, True))
    blended = cv2.addWeighted(filled, AREA_OPACITY, canvas, 1 - AREA_OPACITY, 0)
    return np.asarray(blended, np.uint8)
