"""A network of its own for a size that keeps coming: the same answers, for two sizes at most."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.settings import Settings
from tests.support.images import sample
from tests.support.stack import DEMO_MODEL
from worker.images import decode
from worker.openvino_network import (
    OWN_NETWORKS,
    PICTURES_TO_OWN_NETWORK,
    OpenVINONetwork,
    openvino_options,
)
from worker.runtimes import prepare


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = str(tmp_path_factory.mktemp("cache"))
    settings = Settings(yolo_model=str(DEMO_MODEL), yolo_runtime="openvino", model_cache_dir=cache)
    return prepare(settings).path


@pytest.mark.parametrize(
    ("precision", "confidence", "pixels"), [("f32", 0.0001, 0.01), ("auto", 0.03, 4.0)]
)
def test_a_size_that_keeps_coming_is_answered_as_before(
    export: Path, precision: str, confidence: float, pixels: float
) -> None:
    network = OpenVINONetwork(export, openvino_options(1, precision))
    picture = decode(sample("mixed.jpg"), max_pixels=10**8).pixels
    for shape in ((1, 320, 320, 3), (1, 256, 320, 3), (2, 320, 256, 3)):
        count, height, width, _ = shape
        batch = np.stack([cv2.resize(picture, (width, height))] * count)
        requests, outputs = [], []
        for _ in range(PICTURES_TO_OWN_NETWORK):
            requests.append(network._own.get(shape))
            outputs.append(network(batch)[0].copy())
        assert requests[-1] is None, "not before it has come often enough"
        first, last = outputs[0], outputs[-1]
        assert first.shape == last.shape
        assert first.shape[0] == shape[0]
        assert np.abs(first[:, 4:] - last[:, 4:]).max() < confidence
        # Where nothing is, a box is anything: bfloat16 may put it elsewhere.
        seen = first[:, 4:].max(axis=1, keepdims=True) > 0.25
        assert seen.any()
        assert np.abs((first[:, :4] - last[:, :4]) * seen).max() < pixels
    assert list(network._own) == [(1, 320, 320, 3), (1, 256, 320, 3)]
    assert len(network._own) == OWN_NETWORKS
