"""Draws detections with Ultralytics' own drawing code, at the size that is sent to the client."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.model.images import Pixels, fit_within

WHITE_REPLACEMENT_RGB = (255, 112, 31)


def replace_white() -> None:
    """Replace the third class' colour: lines in near-white are invisible on paper and sky."""
    from ultralytics.utils.plotting import colors

    colors.palette[2] = WHITE_REPLACEMENT_RGB


def draw(result: Any, pixels: Pixels, max_side: int) -> Pixels:
    """Draw an Ultralytics `Results` on its picture.

    `pixels`: the H x W x 3 uint8 BGR picture of `result`. Returns one like it with its longer side
    at most `max_side` pixels; 0 leaves it at full size.
    """
    canvas = fit_within(pixels, max_side)
    if canvas is not pixels and result.masks is None and result.obb is None:
        height, width = canvas.shape[:2]
        factor_x, factor_y = width / pixels.shape[1], height / pixels.shape[0]
        result = scaled_result(result, canvas, factor_x, factor_y)
        return np.asarray(result.plot(), np.uint8)
    return fit_within(np.asarray(result.plot(), np.uint8), max_side)


def scaled_result(result: Any, canvas: Pixels, factor_x: float, factor_y: float) -> Any:
    """Copy a `Results` without masks or rotated boxes onto `canvas`, its picture resized by
    `factor_x` and `factor_y`."""
    copy = result.new()
    copy.orig_img = canvas
    copy.orig_shape = canvas.shape[:2]
    if result.boxes is not None:
        boxes = result.boxes.data.clone()
        boxes[:, [0, 2]] *= factor_x
        boxes[:, [1, 3]] *= factor_y
        copy.update(boxes=boxes)
    if result.keypoints is not None:
        points = result.keypoints.data.clone()
        points[..., 0] *= factor_x
        points[..., 1] *= factor_y
        from ultralytics.engine.results import Keypoints

        copy.keypoints = Keypoints(points, copy.orig_shape)
    if result.probs is not None:
        copy.update(probs=result.probs.data)
    return copy
