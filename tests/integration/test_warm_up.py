"""A new detector has already done what would make its first jobs slow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shared.job.record import DetectParameters
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.models import random_model
from tests.support.stack import DEMO_MODEL
from worker.model import warm_up
from worker.model.detector import Detector
from worker.model.drawing import draw
from worker.model.images import DecodedImage, Pixels
from worker.model.openvino_network import FIXED_SIZES, OpenVINONetwork
from worker.model.runtimes import ServedModel, prepare
from worker.process import child, parent
from worker.process.shared_memory import SharedMemory


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def openvino(cache: str, **more: Any) -> tuple[Settings, ServedModel]:
    settings = Settings(
        yolo_model=str(DEMO_MODEL), yolo_runtime="openvino", model_cache_dir=cache, **more
    )
    return settings, prepare(settings)


def networks_input(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all batches that OpenVINO networks get from now on."""
    shapes: list[tuple[int, ...]] = []
    run = OpenVINONetwork.__call__

    def watched(network: OpenVINONetwork, batch: Pixels) -> Any:
        shapes.append(batch.shape)
        return run(network, batch)

    monkeypatch.setattr(OpenVINONetwork, "__call__", watched)
    return shapes


def test_a_sizes_network_exists_and_has_run_before_the_first_request(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = networks_input(monkeypatch)
    detector = Detector(*openvino(cache), threads=1)
    assert {(1, *size, 3) for size in FIXED_SIZES} < set(shapes)
    assert shapes[0] == (1, 640, 640, 3), "the largest first: the others reuse its memory"

    def compile_now(*_: Any) -> None:
        pytest.fail("a network is compiled for a request")

    monkeypatch.setattr(OpenVINONetwork, "_request", compile_now)
    for height, width in ((480, 640), (1280, 720), (1600, 1200), (300, 2000)):
        image = DecodedImage(np.zeros((height, width, 3), np.uint8), width, height)
        detector.predict(image, DetectParameters())
    assert (1, 96, 640, 3) in shapes


def test_where_batches_may_come_batches_are_warmed(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = networks_input(monkeypatch)
    Detector(*openvino(cache, micro_batch_jobs=3), threads=1)
    assert {(3, 480, 640, 3), (2, 480, 640, 3)} < set(shapes)


def random_detector(config: str, folder: Path) -> Detector:
    weights = random_model(config, folder)
    settings = Settings(yolo_model=str(weights), yolo_runtime="torch", annotated_max_side=320)
    return Detector(settings, prepare(settings), threads=1)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ("yolov8n.yaml", "boxes"),
        ("yolov8n-seg.yaml", "masks"),
        ("yolov8n-pose.yaml", "keypoints"),
        ("yolov8n-obb.yaml", "obb"),
        ("yolov8n-cls.yaml", "probs"),
    ],
)
def test_what_the_task_finds_has_been_drawn(
    config: str,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ultralytics.engine.results import Results

    drawn: list[tuple[tuple[int, ...], bool]] = []
    plot = Results.plot

    def watched(result: Any, *args: Any, **options: Any) -> Any:
        canvas = plot(result, *args, **options)
        found = getattr(result, part)
        marked = not np.array_equal(canvas, result.orig_img)
        drawn.append((canvas.shape, marked and found is not None and len(found.data) > 0))
        return canvas

    monkeypatch.setattr(Results, "plot", watched)
    detector = random_detector(config, tmp_path)
    assert "may be slow" not in caplog.text
    shapes = {shape for shape, real in drawn if real}
    assert len(shapes) > 1, "at several sizes"
    pixels = np.full((480, 640, 3), 114, np.uint8)
    result = warm_up.made_up_result(detector.task, detector.names, pixels)
    rows = result.summary()
    assert {row["name"] for row in rows} <= set(detector.names.values())
    assert rows
    assert not np.array_equal(draw(result, pixels, 0), pixels)


def test_files_are_decoded_in_every_way(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: set[int] = set()
    decode = cv2.imdecode

    def watched(data: Any, flags: int, *rest: Any) -> Any:
        ways.add(flags)
        return decode(data, flags, *rest)

    monkeypatch.setattr(cv2, "imdecode", watched)
    Detector(*openvino(cache), threads=1)
    # IMREAD_COLOR reads files at full size; the reduced modes have its bit set as well.
    wanted = (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8)
    upright = cv2.IMREAD_IGNORE_ORIENTATION
    assert {way | upright for way in wanted} <= ways
    assert cv2.IMREAD_COLOR | upright in ways
    assert any(way in ways for way in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_UNCHANGED | upright))


def test_what_costs_speed_alone_does_not_keep_a_process_from_serving(
    cache: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such font")

    monkeypatch.setattr(warm_up, "made_up_result", broken)
    shapes = networks_input(monkeypatch)
    with caplog.at_level(logging.WARNING, "yolo_queue.worker"):
        detector = Detector(*openvino(cache, micro_batch_jobs=2), threads=1)
    assert "first pictures may be slow: detections: no such font" in caplog.text
    assert (2, 480, 640, 3) in shapes, "what comes after it is warmed all the same"
    assert detector.task == "detect"


def test_the_first_job_finds_connection_and_script(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WorkerStore(settings)
    store.redis.script_flush()
    store.redis.connection_pool.disconnect()
    monkeypatch.setattr(parent, "_parent", parent.Parent("w/1", {}, SharedMemory()))
    child._open_connection(store)
    opened = store.redis.info("stats")["total_connections_received"]
    assert store.redis.script_exists(store._lua._scripts["claim"].sha) == [True]
    assert store.claim("another", "worker", []) == "unknown"
    assert store.redis.info("stats")["total_connections_received"] == opened
    assert store.redis.keys() == [], "and nothing is left"
