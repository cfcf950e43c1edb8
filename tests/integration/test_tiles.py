"""Tiles with real models: what is found in a tile, and pictures of many small things."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.job.record import DetectParameters
from shared.settings import Settings
from shared.tiling import Tile, Tiling
from tests.support.images import SMALL_CODES, encoded, many_codes, photograph, sample
from tests.support.models import random_model
from tests.support.stack import DEMO_MODEL
from worker.model.detector import Detector, Prediction
from worker.model.images import DecodedImage, decode, scale_needed
from worker.model.runtimes import prepare
from worker.model.tiled import _place, results_of, rows_of

LIMIT = 50_000_000
CONFIGS = ["yolov8n.yaml", "yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-obb.yaml"]
RUNTIMES = ["torch", "openvino"]


def detector_of(weights: Path, runtime: str, cache: Path) -> Detector:
    settings = Settings(
        yolo_model=str(weights),
        yolo_runtime=runtime,
        yolo_precision="f32",
        model_cache_dir=str(cache),
        annotated_max_side=320,
    )
    return Detector(settings, prepare(settings), threads=1)


def tiled(detector: Detector, image: DecodedImage, parameters: DetectParameters) -> Prediction:
    tiling = parameters.tiling(image.width, image.height, 400)
    assert tiling
    assert tiling.count
    whole = Tile(0, 0, image.width, image.height)
    found = detector.find(image, [whole, *tiling.tiles], parameters)
    return detector.merge(found, image, parameters, 0.0)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("config", CONFIGS)
def test_a_tile_gets_the_answer_of_a_picture_cut_out(
    config: str, runtime: str, tmp_path: Path
) -> None:
    """Of every task, in pixels of the whole picture. The weights are random."""
    detector = detector_of(random_model(config, tmp_path), runtime, tmp_path)
    image = decode(photograph(), max_pixels=LIMIT)
    parameters = DetectParameters(conf=0.0001, imgsz=320)
    tiles = [Tile(0, 0, 400, 400), Tile(300, 200, 400, 400), Tile(410, 600, 400, 400)]
    for tile, found in zip(tiles, detector.find(image, tiles, parameters), strict=True):
        ours = rows_of(found, results_of(found, image.pixels, detector.names))
        cut = image.pixels[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        alone = DecodedImage(np.ascontiguousarray(cut), tile.width, tile.height)
        assert_same(ours, detector.predict(alone, parameters).detections, tile)
        assert detector.merge([found], image, parameters, 0.0).annotated is not None


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], tile: Tile) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-4)
        corner = np.array([tile.x, tile.y])
        assert one["box"].keys() == other["box"].keys()
        np.testing.assert_allclose(corners(one), corners(other) + corner, atol=0.1)
        for part in {"segments", "keypoints"} & one.keys():
            points, expected = (
                np.array([row[part]["x"], row[part]["y"]]).T for row in (one, other)
            )
            np.testing.assert_allclose(points, expected + corner, atol=0.1)


def corners(row: dict[str, Any]) -> NDArray[np.float64]:
    """Of a box, in an order that does not depend on which comes first."""
    box = row["box"]
    points = [(box[f"x{n}"], box[f"y{n}"]) for n in range(1, len(box) // 2 + 1)]
    return np.array(sorted(points))


def test_the_picture_as_a_whole_gets_the_answer_of_a_job_without_tiles(tmp_path: Path) -> None:
    detector = detector_of(DEMO_MODEL, "torch", tmp_path)
    image = decode(sample(), max_pixels=LIMIT)
    parameters = DetectParameters()
    whole = Tile(0, 0, image.width, image.height)
    ours = detector.merge(detector.find(image, [whole], parameters), image, parameters, 0.0)
    assert ours.detections == detector.predict(image, parameters).detections


def test_small_things_in_a_large_picture_are_found_once_each(tmp_path: Path) -> None:
    """12 megapixels, 48 times three codes. The picture as a whole shows nothing but wrong ones."""
    picture, places = many_codes()
    image = decode(encoded(picture, "PNG"), max_pixels=LIMIT)
    detector = detector_of(DEMO_MODEL, "torch", tmp_path)
    parameters = DetectParameters(tile="auto", annotate=False)
    untiled = detector.predict(image, parameters).detections
    assert not any(row["name"] == "aruco_marker" for row in untiled)
    width, height = SMALL_CODES
    found: list[set[str]] = [set() for _ in places]
    detections = tiled(detector, image, parameters).detections
    for detection in detections:
        box = detection["box"]
        for names, (left, top) in zip(found, places, strict=True):
            if left < box["x1"] < left + width and top < box["y1"] < top + height:
                names.add(detection["name"])
    assert found == [{"qr_code", "barcode", "aruco_marker"}] * len(places)
    assert len(detections) == 3 * len(places), "nothing twice"


def test_tiles_that_the_network_shrinks_are_decoded_smaller(tmp_path: Path) -> None:
    """A JPEG of 12 megapixels, tiles of 1,280 pixels for a network of 640."""
    picture = Image.open(io.BytesIO(sample())).convert("RGB").resize((1600, 1200))
    canvas = Image.new("RGB", (4000, 3000), (128, 128, 128))
    canvas.paste(picture, (1500, 1000))
    data = encoded(canvas, "JPEG", quality=92)
    parameters = DetectParameters(tile=1280, annotate=False)
    scale = scale_needed(parameters)
    half = decode(data, max_pixels=LIMIT, min_side=parameters.imgsz, min_scale=scale)
    assert half.pixels.shape == (1500, 2000, 3)
    detector = detector_of(DEMO_MODEL, "torch", tmp_path)
    boxes = [
        [detection["box"][name] for name in ("x1", "y1", "x2", "y2")]
        for image in (half, decode(data, max_pixels=LIMIT))
        for detection in tiled(detector, image, parameters).detections
    ]
    assert len(boxes) == 6
    half_boxes, full_boxes = np.array(boxes[:3]), np.array(boxes[3:])
    near = np.abs(half_boxes[:, None] - full_boxes[None]).max(axis=2).min(axis=1)
    assert (near < 8).all(), "of 4,000 pixels"
    assert scale_needed(DetectParameters(tile="auto")) == 1
    assert scale_needed(DetectParameters(tile=320)) == 1
    assert scale_needed(DetectParameters()) == 0


def test_areas_of_tiles_are_drawn(tmp_path: Path) -> None:
    """The masks of a large picture would take gigabytes, so their outlines are filled."""
    detector = detector_of(random_model("yolov8n-seg.yaml", tmp_path), "torch", tmp_path)
    image = decode(photograph(), max_pixels=LIMIT)
    parameters = DetectParameters(conf=0.0001, max_det=3, tile=400, imgsz=320)
    prediction = tiled(detector, image, parameters)
    assert prediction.annotated is not None
    plain = cv2.resize(image.pixels, prediction.annotated.shape[1::-1])
    changed = (np.abs(prediction.annotated.astype(int) - plain) > 20).any(axis=2).mean()
    assert changed > 0.2


@pytest.mark.parametrize("width", [2602, 2605, 3001])
def test_tiles_of_a_picture_decoded_smaller_end_at_its_edges(width: int) -> None:
    """A tile that ended a pixel before the edge would take what it sees there for a piece."""
    for size in (1281, 1285, 1300):
        decoded = DecodedImage(np.zeros((900, (width + 1) // 2, 3), np.uint8), width, 1800)
        tiling = Tiling(size, 0.2, width, 1800)
        places = [_place(tile, decoded) for tile in tiling.tiles]
        assert max(x2 for _, _, x2, _ in places) == decoded.pixels.shape[1]
        assert max(y2 for _, _, _, y2 in places) == decoded.pixels.shape[0]
        assert len({(x2 - x1, y2 - y1) for x1, y1, x2, y2 in places}) == 1
