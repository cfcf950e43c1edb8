"""What a part has found survives its way through Redis."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from worker.model.findings import Findings
from worker.model.merging import Found

NOTHING, ONE, MANY = 0, 1, 5


def found(number: int, kind: str) -> Found:
    random = np.random.default_rng(number)

    def floats(*shape: int) -> Any:
        return random.random((number, *shape), np.float32) * 1000

    return Found(
        (0, 10, 640, 650 + number),
        floats(4),
        floats(),
        np.arange(number, dtype=np.int32),
        floats(4, 2) if kind == "obb" else None,
        floats(17, 3) if kind == "pose" else None,
        [random.random((3 + n, 2), np.float32) for n in range(number)]
        if kind == "segment"
        else None,
    )


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "obb"])
@pytest.mark.parametrize(
    "numbers", [[], [NOTHING], [ONE], [NOTHING, MANY, NOTHING, ONE], [MANY, NOTHING, NOTHING]]
)
def test_nothing_changes(kind: str, numbers: list[int]) -> None:
    before = Findings([found(number, kind) for number in numbers], "v1 4x3", 0.25, 1.5)
    after = Findings.from_bytes(before.to_bytes())
    assert (after.made_as, after.decode_seconds, after.infer_seconds) == ("v1 4x3", 0.25, 1.5)
    assert len(after.found) == len(before.found)
    for one, other in zip(after.found, before.found, strict=True):
        assert one.region == other.region
        for name in ("boxes", "scores", "classes", "corners", "keypoints"):
            ours, theirs = getattr(one, name), getattr(other, name)
            assert (ours is None) == (theirs is None), name
            if theirs is not None:
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)
        assert (one.outlines is None) == (other.outlines is None)
        for ours, theirs in zip(one.outlines or (), other.outlines or (), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("how", ["no archive", "another form", "cut off", "empty"])
def test_what_another_version_has_written_is_not_there(how: str) -> None:
    whole = Findings([found(3, "detect")], "v1", 0.0, 0.0).to_bytes()
    another = io.BytesIO()
    np.savez(another, boxes=np.zeros((3, 4)))
    written = {"no archive": b"{}", "another form": another.getvalue(), "cut off": whole[:-40]}
    assert Findings.read(written.get(how, b"")) is None
    assert Findings.read(whole) is not None


def test_a_box_takes_less_than_24_bytes_and_its_name() -> None:
    many = Findings([found(1000, "detect")], "v1", 0.0, 0.0)
    assert len(many.to_bytes()) < 1000 * 24 + 2000
