"""Prepared convolutions compute what PyTorch's own compute, in networks of every YOLO family."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from shared.job.record import DetectParameters
from shared.settings import Settings
from tests.support.images import sample
from tests.support.stack import DEMO_MODEL
from worker.model import torch_convolutions
from worker.model.detector import Detector
from worker.model.images import decode
from worker.model.runtimes import prepare
from worker.model.torch_convolutions import prepare_convolutions
from worker.model.weights import be_quiet_and_offline

SHAPES = ((1, 3, 480, 640), (1, 3, 640, 384), (3, 3, 320, 320))


def fused(config: str) -> Any:
    """A network as Ultralytics predicts with it. Its weights are random, the same each time."""
    be_quiet_and_offline()
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    network = YOLO(config, verbose=False).model.eval().fuse(verbose=False).float()
    return network.requires_grad_(False)


def run(network: Any, shape: tuple[int, ...]) -> list[Any]:
    import torch

    picture = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return list(torch_convolutions._tensors(network(picture)))


@pytest.mark.parametrize(
    "config",
    [
        *("yolov8n.yaml", "yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-obb.yaml"),
        *("yolov8n-cls.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml"),
    ],
)
def test_prepared_convolutions_give_what_pytorch_gives(config: str) -> None:
    import torch

    network, as_it_comes = fused(config), fused(config)
    assert prepare_convolutions(network)
    for shape in SHAPES:  # also those that the weights were not reordered for
        ours, theirs = run(network, shape), run(as_it_comes, shape)
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_weights_are_in_memory_once() -> None:
    network = fused("yolov8n.yaml")
    before = sum(p.numel() for p in network.parameters())
    assert prepare_convolutions(network)
    assert sum(p.numel() for p in network.parameters()) < before / 100


def test_a_network_that_would_give_something_else_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    prepared = torch_convolutions._prepared

    def wrong(*arguments: Any) -> Any:
        forward = prepared(*arguments)
        return lambda x: forward(x) * 1.01

    monkeypatch.setattr(torch_convolutions, "_prepared", wrong)
    network, as_it_comes = fused("yolov8n.yaml"), fused("yolov8n.yaml")
    with caplog.at_level(logging.WARNING, "yolo_queue.worker"):
        assert not prepare_convolutions(network)
    assert "without prepared convolutions" in caplog.text
    for a, b in zip(run(network, SHAPES[0]), run(as_it_comes, SHAPES[0]), strict=True):
        assert torch.equal(a, b)


def test_the_detector_finds_what_ultralytics_finds() -> None:
    from ultralytics import YOLO

    settings = Settings(yolo_model=str(DEMO_MODEL), yolo_runtime="torch")
    detector = Detector(settings, prepare(settings), threads=1)
    plain = YOLO(DEMO_MODEL, verbose=False)
    image = decode(sample("mixed.jpg"), max_pixels=10**8)
    ours = detector.predict(image, DetectParameters()).detections
    theirs = plain.predict(image.pixels, device="cpu", verbose=False)[0].summary()
    assert [row["name"] for row in ours] == [row["name"] for row in theirs] != []
    for a, b in zip(ours, theirs, strict=True):
        assert abs(a["confidence"] - b["confidence"]) < 1e-4
        np.testing.assert_allclose(list(a["box"].values()), list(b["box"].values()), atol=0.01)


@pytest.mark.parametrize("change", ["gone", "another signature"])
def test_a_pytorch_without_the_operation_serves_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    import torch

    network, as_it_comes = fused("yolov8n.yaml"), fused("yolov8n.yaml")
    if change == "gone":
        monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    else:
        monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", lambda weight: weight)
    assert not prepare_convolutions(network)
    for ours, theirs in zip(run(network, SHAPES[0]), run(as_it_comes, SHAPES[0]), strict=True):
        assert torch.equal(ours, theirs)
