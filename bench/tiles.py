"""Measures tiles: what they find in pictures of many small things, and how fast; beside SAHI, which
`make bench` installs.

    python -m bench.tiles --weights yolov8n.pt --pictures bus.jpg zidane.jpg
    python -m bench.tiles

The pictures, scaled down, are put side by side. What the model finds in each of them alone is taken
for the truth. Without `--pictures`: the samples of the demo model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.report import save
from shared.job.record import DetectParameters
from shared.settings import Settings
from shared.tiling import Tile
from tests.support.images import SAMPLES
from tests.support.stack import DEMO_MODEL
from worker.model.detector import Detector
from worker.model.images import DecodedImage, Pixels
from worker.model.runtimes import prepare
from worker.process.cores import threads_per_process

SIZES = {"12 megapixels": (4000, 3000), "48 megapixels": (8000, 6000)}
HEIGHTS = 120, 240
"""Of the small pictures, in pixels."""
TILE, OVERLAP = 640, 0.2
MAX_DET = 20_000

Rows = NDArray[np.float64]
"""N x 6: class, x1, y1, x2, y2, confidence."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    pixels: Pixels
    places: list[tuple[int, int, int, int]]
    """x, y, width and height of each small picture."""


def mosaic(pictures: Sequence[Path], width: int, height: int) -> Mosaic:
    """Rows of small pictures, chosen and scaled at random, but the same each time."""
    rng = np.random.default_rng(0)
    originals = [np.asarray(cv2.imread(str(path)), np.uint8) for path in pictures]
    canvas = np.full((height, width, 3), 127, np.uint8)
    places = []
    y = 0
    while y + HEIGHTS[1] <= height:
        down = int(rng.integers(*HEIGHTS))
        x = 0
        while True:
            picture = originals[rng.integers(len(originals))]
            across = round(picture.shape[1] * down / picture.shape[0])
            if x + across > width:
                break
            small = cv2.resize(picture, (across, down), interpolation=cv2.INTER_AREA)
            canvas[y : y + down, x : x + across] = small
            places.append((x, y, across, down))
            x += across
        y += down
    return Mosaic(canvas, places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEMO_MODEL)
    parser.add_argument("--pictures", type=Path, nargs="+")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    arguments = parser.parse_args()
    pictures = arguments.pictures or sorted(SAMPLES.glob("*.jpg"))
    settings = Settings(yolo_model=str(arguments.weights.resolve()))
    detector = Detector(settings, prepare(settings), threads=threads_per_process(1))
    ways: dict[str, Callable[[Pixels], Rows]] = {
        "one pass at 640": lambda pixels: untiled(detector, pixels, 640),
        "one pass at 1,920": lambda pixels: untiled(detector, pixels, 1920),
        "**tiles**": lambda pixels: tiled(detector, pixels),
        **sahi_ways(arguments.weights),
    }
    lines = [
        "| picture | way | recall | precision | found twice | s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    figures: dict[str, Any] = {}
    for size in arguments.sizes:
        picture = mosaic(pictures, *SIZES[size])
        truth = found_alone(detector, picture)
        title = f"{size}, {len(truth)} things"
        for name, way in ways.items():
            way(picture.pixels[:1280, :1280].copy())  # so that nothing is slow for the first time
            begin = time.perf_counter()
            rows = way(picture.pixels)
            seconds = time.perf_counter() - begin
            score = figures[f"{size}: {name}"] = {**judged(truth, rows), "seconds": seconds}
            lines.append(
                f"| {title} | {name} | {score['recall']:.3f} | {score['precision']:.3f} "
                f"| {score['twice']} | {seconds:.1f} |"
            )
            print(lines[-1], flush=True)
    save(f"tiles_{arguments.weights.stem}", figures, lines)


# -- ways -----------------------------------------------------------------------------------------


def untiled(detector: Detector, pixels: Pixels, imgsz: int) -> Rows:
    parameters = DetectParameters(annotate=False, imgsz=imgsz, max_det=3000)
    image = DecodedImage(pixels, pixels.shape[1], pixels.shape[0])
    return rows_of(detector.predict(image, parameters).detections)


def tiled(detector: Detector, pixels: Pixels) -> Rows:
    """As a pool process does it."""
    height, width = pixels.shape[:2]
    # The bound of a request would be too low for 48 megapixels full of things.
    parameters = DetectParameters(annotate=False, tile=TILE, overlap=OVERLAP)
    parameters = parameters.model_copy(update={"max_det": MAX_DET})
    image = DecodedImage(pixels, width, height)
    tiling = parameters.tiling(width, height, 10_000)
    assert tiling
    found = detector.find(image, [Tile(0, 0, width, height), *tiling.tiles], parameters)
    return rows_of(detector.merge(found, image, parameters, 0.0).detections)


def sahi_ways(weights: Path) -> dict[str, Callable[[Pixels], Rows]]:
    """SAHI with Ultralytics on PyTorch, and with two of its ways to merge."""
    import torch
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model_path=str(weights),
        confidence_threshold=0.25,
        device="cpu",
        image_size=640,
    )

    def sliced(pixels: Pixels, merging: str) -> Rows:
        torch.set_num_threads(threads_per_process(1))
        result = get_sliced_prediction(
            np.ascontiguousarray(pixels[..., ::-1]),
            model,
            slice_height=TILE,
            slice_width=TILE,
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            postprocess_type=merging,
            verbose=0,
        )
        rows = [
            (thing.category.id, *thing.bbox.to_xyxy(), thing.score.value)
            for thing in result.object_prediction_list
        ]
        return np.array(rows, np.float64).reshape(-1, 6)

    return {
        "SAHI": lambda pixels: sliced(pixels, "GREEDYNMM"),
        "SAHI, NMS": lambda pixels: sliced(pixels, "NMS"),
    }


# -- judging --------------------------------------------------------------------------------------


def found_alone(detector: Detector, picture: Mosaic) -> Rows:
    """What the model finds in each of the small pictures alone."""
    rows = []
    for x, y, width, height in picture.places:
        cut = np.ascontiguousarray(picture.pixels[y : y + height, x : x + width])
        image = DecodedImage(cut, width, height)
        found = rows_of(detector.predict(image, DetectParameters(annotate=False)).detections)
        rows.append(found + np.array([0, x, y, x, y, 0]))
    return np.concatenate(rows)


def judged(truth: Rows, rows: Rows) -> dict[str, float]:
    """Recall and precision at an IoU of 0.5, one to one, the best agreements first; and how many
    pairs of one class have an IoU of 0.7 or more."""
    overlap = iou(truth, rows)
    pairs = sorted(
        ((overlap[i, j], int(i), int(j)) for i, j in zip(*np.nonzero(overlap >= 0.5), strict=True)),
        reverse=True,
    )
    true, right = set[int](), set[int]()
    for _, i, j in pairs:
        if i not in true and j not in right:
            true.add(i)
            right.add(j)
    twice = int((np.triu(iou(rows, rows), 1) >= 0.7).sum())
    return {
        "recall": len(true) / len(truth),
        "precision": len(right) / max(1, len(rows)),
        "twice": twice,
    }


def iou(first: Rows, second: Rows) -> Rows:
    """N x M; 0 between classes."""
    low = np.maximum(first[:, None, 1:3], second[None, :, 1:3])
    high = np.minimum(first[:, None, 3:5], second[None, :, 3:5])
    both = (high - low).clip(0).prod(axis=2)
    areas = [(rows[:, 3:5] - rows[:, 1:3]).prod(axis=1) for rows in (first, second)]
    same = first[:, None, 0] == second[None, :, 0]
    return np.asarray(same * both / (areas[0][:, None] + areas[1][None] - both))


def rows_of(detections: Sequence[dict[str, Any]]) -> Rows:
    rows = [
        (row["class"], *(row["box"][name] for name in ("x1", "y1", "x2", "y2")), row["confidence"])
        for row in detections
    ]
    return np.array(rows, np.float64).reshape(-1, 6)


if __name__ == "__main__":
    main()
