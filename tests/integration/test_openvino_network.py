"""Networks compiled for one size give the answers of the one that takes any size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.settings import Settings
from tests.support.images import sample
from tests.support.stack import DEMO_MODEL
from worker.model.images import Pixels, decode
from worker.model.openvino_network import FIXED_SIZES, OpenVINONetwork, openvino_options
from worker.model.runtimes import prepare


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = str(tmp_path_factory.mktemp("cache"))
    settings = Settings(yolo_model=str(DEMO_MODEL), yolo_runtime="openvino", model_cache_dir=cache)
    return prepare(settings).path


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return decode(sample("mixed.jpg"), max_pixels=10**8).pixels


@pytest.mark.parametrize(
    ("precision", "confidence", "pixels"), [("f32", 0.0001, 0.01), ("auto", 0.03, 4.0)]
)
def test_a_network_of_one_size_answers_like_the_one_of_any_size(
    export: Path, picture: Pixels, precision: str, confidence: float, pixels: float
) -> None:
    options = openvino_options(1, precision)
    network = OpenVINONetwork(export, options)
    batches = [cv2.resize(picture, (width, height))[None] for height, width in FIXED_SIZES]
    fixed = [network(batch)[0].copy() for batch in batches]
    assert len(network._by_shape) == len(FIXED_SIZES)
    network = OpenVINONetwork(export, options, fixed_sizes=False)
    for batch, given in zip(batches, fixed, strict=True):
        expected = network(batch)[0]
        assert np.abs(given[:, 4:] - expected[:, 4:]).max() < confidence
        # Without an object a box means nothing, and bfloat16 may put it elsewhere.
        seen = expected[:, 4:].max(axis=1, keepdims=True) > 0.25
        assert seen.any()
        assert np.abs((given[:, :4] - expected[:, :4]) * seen).max() < pixels


def test_what_came_before_does_not_change_an_answer(export: Path, picture: Pixels) -> None:
    """Bit for bit, in bfloat16 too: a new worker answers like one that has run for days."""
    options = openvino_options(1, "auto")
    sizes = [(480, 640), (320, 320), (384, 640), (640, 640)]
    batches = [cv2.resize(picture, (width, height))[None] for height, width in sizes]

    def answers(network: OpenVINONetwork, order: list[Pixels]) -> dict[int, NDArray[np.float32]]:
        return {id(batch): network(batch)[0].copy() for batch in order}

    long_running = OpenVINONetwork(export, options)
    for _ in range(40):
        for batch in batches:
            long_running(batch)
    long_running(np.concatenate([batches[0], batches[0]]))
    later = answers(long_running, batches)
    first = answers(OpenVINONetwork(export, options), batches[::-1])
    assert all(np.array_equal(later[key], first[key]) for key in first)


@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_without_fixed_sizes_a_picture_alone_gets_the_answer_it_gets_in_a_batch(
    export: Path, picture: Pixels, precision: str
) -> None:
    network = OpenVINONetwork(export, openvino_options(1, precision), fixed_sizes=False)
    batch = np.stack([cv2.resize(picture, (640, 480)), cv2.resize(picture[::-1], (640, 480))] * 2)
    together = network(batch)[0].copy()
    for number in range(len(batch)):
        assert np.array_equal(network(batch[number : number + 1])[0][0], together[number])
