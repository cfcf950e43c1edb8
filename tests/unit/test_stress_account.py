"""The account and the report of a stress run, with faults that a real service does not show."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from yolo_queue import AsyncClient
from yolo_queue.cli import stress_report
from yolo_queue.cli.stress_account import Sample, Shot, distribution, per_second, reconcile
from yolo_queue.cli.stress_images import drawn, from_folder
from yolo_queue.cli.stress_load import Load, Plan

RUN = {"url": "http://x", "images": "[drawn]", "mean_image_bytes": 1e6, "began_at": "2026-01-01"}


def ended(index: int, state: str = "completed", **more: object) -> Shot:
    shot = Shot(index, accepted=1.0, ended=2.0, task_id=f"t{index}", state=state)
    for name, value in more.items():
        setattr(shot, name, value)
    return shot


def test_an_account_without_losses() -> None:
    account = reconcile(
        [ended(0), ended(1, "failed", code="image_undecodable"), Shot(2, state="refused",
         refusals=["queue_full", "queue_full"])]
    )  # fmt: skip
    assert account["ok"]
    assert (account["submitted"], account["accepted"], account["refused"]) == (3, 2, 1)
    assert account["refusals_by_code"] == {"queue_full": 2}
    assert account["refused_by_code"] == {"queue_full": 1}
    assert account["failed_by_code"] == {"image_undecodable": 1}


def test_each_kind_of_loss_is_counted() -> None:
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


def test_percentiles_lie_between_the_nearest_values() -> None:
    assert distribution([5, 1, 4, 2, 3])["p50"] == 3
    assert distribution([10, 0])["p95"] == pytest.approx(9.5)
    assert set(distribution([7]).values()) == {1, 7}


def test_rates_count_every_event_once() -> None:
    for times, length in (([], 0.0), ([0.0, 0.2], 0.2), ([0.0, 1.0, 99.9, 100.0], 100.0)):
        rates = per_second(times, length)
        width = 2 * rates[0][0]
        assert sum(rate * width for _, rate in rates) == pytest.approx(len(times))


def test_no_two_images_are_the_same_and_all_decode() -> None:
    supply = drawn(320, 240, variants=2)
    images = [supply.image(number) for number in range(6)]
    assert len(set(images)) == 6
    for image in images:
        with Image.open(io.BytesIO(image)) as opened:
            opened.load()
            assert opened.size == (320, 240)


def report(shots: list[Shot], samples: list[Sample]) -> dict[str, object]:
    async def make() -> dict[str, object]:
        plan = Plan(len(shots), concurrency=4)
        async with AsyncClient() as client:
            load = Load(client, from_folder([]), plan)
            load.shots, load.samples = shots, samples
            return stress_report.report(load, plan, RUN)

    return asyncio.run(make())


def test_the_page_shows_what_went_wrong(tmp_path: Path) -> None:
    shots = [ended(n, timings_ms={"queue": 30.0, "infer": 10.0, "draw": 10.0}) for n in range(3)]
    shots += [ended(3, "lost"), ended(4, "failed", code="image_undecodable")]
    shots += [Shot(5, state="refused", refusals=["queue_full", "queue_full"])]
    samples = [Sample(0.5, 4, 2, 2), Sample(1.0, 0, 1, 2)]
    paths = stress_report.write(report(shots, samples), tmp_path / "run.html")
    assert [path.name for path in paths] == ["run.json", "run.html"]
    assert json.loads(paths[0].read_text())["account"]["lost"] == 1
    page = paths[1].read_text()
    for text in ("1 lost", "refusals: queue_full", "refused: queue_full", "[drawn]", "60%", "█"):
        assert text in page
    assert "failed: image_undecodable" in page


def test_a_report_of_nothing_can_be_shown(tmp_path: Path) -> None:
    for shots in ([], [Shot(0, state="refused", refusals=["unreachable"])]):
        _, page = stress_report.write(report(shots, []), tmp_path / "run")
        assert "every one accounted for" in page.read_text()
