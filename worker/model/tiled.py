"""Runs the tiles of a picture, and the picture as a whole, through a network; and makes one result
of what they found.

Finding and merging are apart, since several workers may share the tiles of one picture
(docs/decisions/0011-tiles.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.job.record import DetectParameters
from shared.tiling import Tile
from worker.model.backend import Backend
from worker.model.images import DecodedImage, Pixels
from worker.model.merging import Found

BATCH_PIXELS = 4 * 640 * 640
"""Of all tiles of one forward pass together, as the network sees them."""
PASS_IOU = 0.9
"""Above it, two boxes of a pass are one thing, whatever `iou` says. A network has thousands of
boxes that differ by a pixel, and the merge compares them all."""
PASS_DETECTIONS = 300
"""What a pass may find; `max_det` counts what is left after the merge. With low confidences asked
for, a tile is full of guesses, and some tasks have a mask for each."""


def find(
    backend: Backend,
    image: DecodedImage,
    tiles: Sequence[Tile],
    parameters: DetectParameters,
    classes: list[int] | None,
) -> list[Found]:
    """What the network finds in each tile, in pixels of `image.pixels`.

    `tiles`: in pixels of the original. A tile as large as the picture is the picture as a whole,
    and gets the answer of an untiled job, up to `PASS_DETECTIONS`. `classes`: see `Backend.infer`.
    """
    within = {"max_det": PASS_DETECTIONS, "iou": min(parameters.iou, PASS_IOU)}
    parameters = parameters.model_copy(update=within)
    size = max(1, BATCH_PIXELS // parameters.imgsz**2)
    size = min(size, backend.max_batch or size)
    found: list[Found] = []
    for group in _of_one_size(tiles, size):
        places = [_place(tile, image) for tile in group]
        crops = [image.pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in places]
        boxed = [backend.letterbox(crop, parameters.imgsz) for crop in crops[1:] and crops]
        results = backend.infer(crops, boxed, parameters, classes)
        found += [
            found_in(result, place, backend.task)
            for result, place in zip(results, places, strict=True)
        ]
    return found


def _of_one_size(tiles: Sequence[Tile], most: int) -> list[list[Tile]]:
    """Consecutive tiles of one size, at most so many together."""
    groups: list[list[Tile]] = []
    for tile in tiles:
        last = groups[-1] if groups else []
        same = last and (last[0].width, last[0].height) == (tile.width, tile.height)
        if same and len(last) < most:
            last.append(tile)
        else:
            groups.append([tile])
    return groups


def _place(tile: Tile, image: DecodedImage) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of a tile in the decoded picture, which may be smaller than the original."""
    scale_x, scale_y = image.scale
    height, width = image.pixels.shape[:2]
    # All tiles of a size must have one size here as well, however their corners are rounded.
    across = min(width, round(tile.width / scale_x))
    down = min(height, round(tile.height / scale_y))
    x, y = round(tile.x / scale_x), round(tile.y / scale_y)
    if tile.x + tile.width == image.width or x + across > width:
        x = width - across
    if tile.y + tile.height == image.height or y + down > height:
        y = height - down
    return x, y, x + across, y + down


def found_in(result: Any, place: tuple[int, int, int, int], task: str) -> Found:
    """Take the detections out of an Ultralytics `Results` of the part of a picture at `place`."""
    corner = np.array(place[:2], np.float32)
    result = result.cpu().numpy()
    rows = result.obb if task == "obb" else result.boxes
    keypoints = outlines = None
    if task == "pose":
        keypoints = np.array(result.keypoints.data, np.float32)
        keypoints[..., :2] += corner
    if task == "segment":
        areas = [] if result.masks is None else result.masks.xy
        outlines = [np.asarray(outline, np.float32) + corner for outline in areas]
    return Found(
        place,
        np.array(rows.xyxy, np.float32).reshape(-1, 4) + np.tile(corner, 2),
        np.array(rows.conf, np.float32),
        np.array(rows.cls, np.int32),
        np.array(rows.xyxyxyxy, np.float32).reshape(-1, 4, 2) + corner if task == "obb" else None,
        keypoints,
        outlines,
    )


def results_of(found: Found, pixels: Pixels, names: dict[int, str]) -> Any:
    """An Ultralytics `Results` of a whole picture. Masks are not in it: at the size of a large
    picture they would take gigabytes."""
    import torch
    from ultralytics.engine.results import Results
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    ends = np.stack([found.scores, found.classes.astype(np.float32)], axis=1)
    boxes = obb = keypoints = None
    if found.corners is None:
        boxes = torch.from_numpy(np.concatenate([found.boxes, ends], axis=1))
    else:
        sides = np.asarray(xyxyxyxy2xywhr(found.corners.reshape(-1, 8)), np.float32)
        obb = torch.from_numpy(np.concatenate([sides.reshape(-1, 5), ends], axis=1))
    if found.keypoints is not None:
        keypoints = torch.from_numpy(found.keypoints)
    return Results(pixels, path="", names=names, boxes=boxes, obb=obb, keypoints=keypoints)


def rows_of(found: Found, result: Any) -> list[dict[str, Any]]:
    """Rows as `Results.summary()` gives them; `result`: from `results_of`."""
    rows: list[dict[str, Any]] = result.summary()
    for row, outline in zip(rows, found.outlines or (), strict=False):
        x, y = outline.astype(float).round(5).T.tolist()
        row["segments"] = {"x": x, "y": y}
    return rows
