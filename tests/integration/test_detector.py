"""The detector with real models: every Ultralytics task, reduced decoding, PyTorch and OpenVINO,
batches."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.errors import InvalidTask
from shared.job.record import DetectParameters
from shared.settings import Settings
from tests.support.images import encoded, photograph, sample
from tests.support.models import random_model
from tests.support.stack import DEMO_MODEL
from worker.model.detector import Detector, to_original
from worker.model.images import DecodedImage, Pixels, decode
from worker.model.openvino_network import compile_network, openvino_options
from worker.model.runtimes import prepare
from worker.model.ultralytics_backend import largest_batch

LIMIT = 50_000_000
LOOSE = DetectParameters(conf=0.0001, max_det=5)
TASKS = ["yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-obb.yaml", "yolov8n-cls.yaml"]
"""Those beside detection, which the demo model does."""


def torch_detector(weights: Path) -> Detector:
    settings = Settings(yolo_model=str(weights), yolo_runtime="torch", annotated_max_side=320)
    return Detector(settings, prepare(settings), threads=1)


def openvino_detector(weights: Path, *, cache: Path, precision: str = "f32") -> Detector:
    settings = Settings(
        yolo_model=str(weights),
        yolo_runtime="openvino",
        yolo_precision=precision,
        model_cache_dir=str(cache),
        annotated_max_side=320,
    )
    return Detector(settings, prepare(settings), threads=1)


@pytest.fixture(scope="module")
def demo() -> Detector:
    return torch_detector(DEMO_MODEL)


@pytest.fixture(scope="module")
def photo() -> DecodedImage:
    return decode(photograph(), max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("config", "task", "keys"),
    [
        ("yolov8n.yaml", "detect", {"name", "class", "confidence", "box"}),
        ("yolov8n-seg.yaml", "segment", {"name", "class", "confidence", "box", "segments"}),
        ("yolov8n-pose.yaml", "pose", {"name", "class", "confidence", "box", "keypoints"}),
        ("yolov8n-obb.yaml", "obb", {"name", "class", "confidence", "box"}),
        ("yolov8n-cls.yaml", "classify", {"name", "class", "confidence"}),
    ],
)
def test_every_task_gives_its_own_result(
    config: str, task: str, keys: set[str], tmp_path: Path, photo: DecodedImage
) -> None:
    """The weights are random, so only the keys count."""
    detector = torch_detector(random_model(config, tmp_path))
    assert detector.task == task
    prediction = detector.predict(photo, LOOSE)
    assert prediction.detections
    assert set(prediction.detections[0]) == keys
    if task == "obb":
        assert set(prediction.detections[0]["box"]) == {
            f"{a}{n}" for a in "xy" for n in range(1, 5)
        }
    assert prediction.annotated is not None
    assert max(prediction.annotated.shape) == 320, "the picture is capped for every task"


def test_coordinates_are_the_originals_whatever_was_decoded() -> None:
    row = {
        "name": "x",
        "box": {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0},
        "segments": {"x": [1.0, 2.0], "y": [3.0, 4.0]},
        "keypoints": {"x": [1.0], "y": [2.0], "visible": [0.5]},
    }
    assert to_original(row, 1, 1) == row
    assert to_original(row, 2, 3) == {
        "name": "x",
        "box": {"x1": 2.0, "y1": 6.0, "x2": 6.0, "y2": 12.0},
        "segments": {"x": [2.0, 4.0], "y": [9.0, 12.0]},
        "keypoints": {"x": [2.0], "y": [6.0], "visible": [0.5]},
    }


def test_reduced_decoding_moves_boxes_by_no_more_than_two_pixels_in_a_thousand(
    demo: Detector,
) -> None:
    """12 megapixels decoded at half size and at full size: the same codes, the same boxes."""
    large = Image.open(io.BytesIO(sample())).convert("RGB").resize((4000, 3000))
    data = encoded(large, "JPEG", quality=92)
    full = demo.predict(decode(data, max_pixels=LIMIT), DetectParameters())
    half = demo.predict(decode(data, max_pixels=LIMIT, min_side=1920), DetectParameters())
    assert [d["name"] for d in half.detections] == [d["name"] for d in full.detections]
    assert full.detections
    for ours, theirs in zip(half.detections, full.detections, strict=True):
        assert abs(ours["confidence"] - theirs["confidence"]) < 0.05
        for name, value in ours["box"].items():
            assert abs(value - theirs["box"][name]) < 8  # of 4,000 pixels


def test_a_class_that_is_not_there(demo: Detector, photo: DecodedImage) -> None:
    with pytest.raises(InvalidTask, match="0 to 2"):
        demo.predict(photo, DetectParameters(classes=(3,)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("precision", "confidence", "pixels"), [("f32", 0.001, 0.5), ("auto", 0.03, 4.0)]
)
def test_openvino_gives_the_same_detections(
    demo: Detector, cache: Path, precision: str, confidence: float, pixels: float
) -> None:
    """PyTorch's, in 32 bits and in what is fastest on this CPU (bfloat16, if it has that)."""
    detector = openvino_detector(DEMO_MODEL, cache=cache, precision=precision)
    assert (detector.task, detector.names) == (demo.task, demo.names)
    for name in ("mixed.jpg", "qr_code.jpg", "barcode.jpg", "screen.jpg"):
        image = decode(sample(name), max_pixels=LIMIT)
        ours = in_order(detector.predict(image, DetectParameters()).detections)
        theirs = in_order(demo.predict(image, DetectParameters()).detections)
        assert [d["name"] for d in ours] == [d["name"] for d in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert abs(a["confidence"] - b["confidence"]) < confidence
            assert all(abs(a["box"][k] - b["box"][k]) < pixels for k in a["box"])


def in_order(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorted by place: the order of confidences may change with their last bit."""
    return sorted(detections, key=lambda d: (d["name"], round(d["box"]["x1"] / 10)))


@pytest.mark.parametrize("config", TASKS)
def test_openvino_does_every_task_as_ultralytics_does(
    config: str, tmp_path: Path, photo: DecodedImage
) -> None:
    """Our path to the network and Ultralytics' own, on the same export of a random network."""
    from ultralytics import YOLO

    weights = random_model(config, tmp_path)
    detector = openvino_detector(weights, cache=tmp_path)
    ours = detector.predict(photo, LOOSE).detections[0]
    model = YOLO(detector.served.path, task=detector.task, verbose=False)
    options = LOOSE.model_dump(include={"conf", "iou", "imgsz", "max_det"})
    model.predict(photo.pixels, verbose=False, **options)
    network = compile_network(detector.served.path, openvino_options(1, "f32"))
    model.predictor.model.backend.ov_compiled_model = network
    theirs = model.predict(photo.pixels, verbose=False, **options)[0].summary()[0]
    assert ours.keys() == theirs.keys()
    assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)
    assert ours.get("box") == pytest.approx(theirs.get("box"), abs=0.5)


def mixed_pictures() -> list[DecodedImage]:
    """After the letterbox some have the same size. One is smaller than the network's input."""
    scene = Image.open(io.BytesIO(sample())).convert("RGB")
    images = [sample("mixed.jpg"), sample("screen.jpg"), photograph()]
    images += [encoded(scene.resize(size), "PNG") for size in ((320, 240), (300, 40))]
    return [decode(image, max_pixels=LIMIT) for image in images]


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_batch_gives_what_each_picture_gives_alone(
    runtime: str, demo: Detector, cache: Path
) -> None:
    detector = demo
    if runtime == "openvino":
        detector = openvino_detector(DEMO_MODEL, cache=cache)
    assert detector.can_batch
    images = mixed_pictures()
    passes = [numbers for numbers, _ in detector._passes(images, DetectParameters())]
    assert 1 < len(passes) < len(images), "some go together, not all"
    other_parameters = DetectParameters(imgsz=320, conf=0.1, max_det=2)
    for parameters in (DetectParameters(), other_parameters):
        alone = [detector.predict(image, parameters) for image in images]
        batch = detector.predict_batch(images, parameters)
        assert any(len(prediction.detections) > 1 for prediction in alone)
        for one, other in zip(batch, alone, strict=True):
            same_detections(one.detections, other.detections)
            assert one.annotated is not None
            assert other.annotated is not None
            assert one.annotated.shape == other.annotated.shape
    (one,) = detector.predict_batch(images[:1], DetectParameters())
    assert one.detections == detector.predict(images[0], DetectParameters()).detections


def same_detections(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Equal but for the last bits: a kernel may add in another order for a batch."""
    assert [row["name"] for row in in_order(ours)] == [row["name"] for row in in_order(theirs)]
    for a, b in zip(in_order(ours), in_order(theirs), strict=True):
        assert a.keys() == b.keys()
        assert a["confidence"] == pytest.approx(b["confidence"], abs=1e-4)
        assert a.get("box") == pytest.approx(b.get("box"), abs=0.1)


@pytest.mark.parametrize("config", TASKS)
def test_every_task_in_a_batch(config: str, tmp_path: Path) -> None:
    detector = torch_detector(random_model(config, tmp_path))
    images, loose = mixed_pictures()[:4], LOOSE.model_copy(update={"imgsz": 320})
    alone = [detector.predict(image, loose) for image in images]
    for one, other in zip(detector.predict_batch(images, loose), alone, strict=True):
        assert one.detections
        # A random network has thousands of nearly equal candidates, so compare only the best.
        ours, theirs = one.detections[0], other.detections[0]
        assert ours.keys() == theirs.keys()
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)
        assert len(one.detections) == len(other.detections)


def test_no_pass_has_more_pictures_than_the_network_takes(
    demo: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a TensorRT engine, which refuses more pictures than it was built for."""
    image = decode(sample("mixed.jpg"), max_pixels=LIMIT)
    infer, counts = demo._backend.infer, []

    def counted(pictures: list[Pixels], *rest: Any) -> list[Any]:
        counts.append(len(pictures))
        return infer(pictures, *rest)

    monkeypatch.setattr(demo._backend, "infer", counted)
    monkeypatch.setattr(demo._backend, "max_batch", 2)
    alone = demo.predict(image, DetectParameters()).detections
    counts.clear()
    batch = demo.predict_batch([image] * 5, DetectParameters())
    assert counts == [2, 2, 1]
    assert len(batch) == 5
    for prediction in batch:
        same_detections(prediction.detections, alone)
    monkeypatch.setattr(demo._backend, "max_batch", 1)
    assert not demo.can_batch


def test_how_many_pictures_a_network_takes() -> None:
    assert largest_batch("pt", dynamic=False, batch=1) is None
    assert largest_batch("onnx", dynamic=True, batch=1) is None
    assert largest_batch("onnx", dynamic=False, batch=4) == 1
    assert largest_batch("engine", dynamic=True, batch=8) == 8
    assert largest_batch("engine", dynamic=False, batch=8) == 1
