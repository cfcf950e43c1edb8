"""The account of a stress run, for what a sound service does not do: lose, double, change."""

from __future__ import annotations

import io
import re

from PIL import Image

from yolo_queue.cli.stress_account import Shot, percentile, reconcile
from yolo_queue.cli.stress_images import drawn
from yolo_queue.cli.svg_charts import Series, lines


def ended(index: int, state: str = "completed", **more: object) -> Shot:
    shot = Shot(index, accepted=1.0, ended=2.0, task_id=f"t{index}", state=state)
    for name, value in more.items():
        setattr(shot, name, value)
    return shot


def test_all_is_well() -> None:
    account = reconcile(
        [ended(0), ended(1, "failed", code="image_undecodable"), Shot(2, state="refused",
         refusals=["queue_full", "queue_full"])]
    )  # fmt: skip
    assert account["ok"]
    assert (account["submitted"], account["accepted"], account["refused"]) == (3, 2, 1)
    assert account["refusals_by_code"] == {"queue_full": 2}
    assert account["refused_by_code"] == {"queue_full": 1}
    assert account["failed_by_code"] == {"image_undecodable": 1}


def test_nothing_wrong_goes_unseen() -> None:
    for wrong, name in (
        (ended(1, "lost"), "lost"),
        (ended(1, "unfinished"), "unfinished"),
        (ended(1, task_id="t0"), "duplicated"),
        (ended(1, changed="completed became failed"), "ended_twice"),
    ):
        account = reconcile([ended(0), wrong])
        assert account[name] == 1
        assert not account["ok"]
    forgotten = reconcile([ended(0), ended(1, "processing")])
    assert not forgotten["balanced"]
    assert not forgotten["ok"]


def test_percentiles() -> None:
    assert percentile([1, 2, 3, 4, 5], 50) == 3
    assert percentile([0, 10], 95) == 9.5
    assert percentile([7], 99) == 7


def test_no_two_images_are_the_same_and_all_can_be_decoded() -> None:
    supply = drawn(320, 240, variants=2)
    images = [supply.image(number) for number in range(6)]
    assert len(set(images)) == 6
    for image in images:
        with Image.open(io.BytesIO(image)) as opened:
            opened.load()
            assert opened.size == (320, 240)


def test_charts_of_nothing_and_of_little() -> None:
    for points in ([], [(0.0, 0.0)], [(0.0, 3.0), (2.5, 0.2)]):
        text = lines([Series("a", points)], x_name="s", y_name="n", x_max=0 if not points else 3)
        assert text.startswith("<svg")
        assert not re.search(r"nan|inf", text)
