"""Two models on the page: one is chosen, and what is added from then on goes to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Tabs
from tests.browser.page_actions import MIXED, add, card
from tests.browser.test_page_surroundings import check_with_axe
from tests.support.models import renamed_model
from tests.support.stack import DEMO_MODEL, Stack

SHAPES = {0: "square", 1: "stripes", 2: "grid"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("two")
    shapes = renamed_model(DEMO_MODEL, folder / "shapes.pt", SHAPES)
    with Stack(
        folder, YOLO_MODELS=f"codes={DEMO_MODEL},shapes={shapes}", WORKER_CONCURRENCY="1"
    ) as stack:
        yield stack.start()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chosen_model_gets_the_images(tabs: Tabs, two: Stack, theme: str) -> None:
    page = tabs.open(url=two.url, color_scheme=theme).page
    choice = page.get_by_label("Model for the images you add")
    expect(choice).to_have_value("codes")
    expect(page.locator("#model-name")).to_have_text("codes detects 3 classes")
    expect(page.locator("#command")).not_to_contain_text("model=")
    expect(page.locator("#samples button")).to_have_count(5)
    check_with_axe(page)
    choice.select_option("shapes")
    expect(page.locator("#model-classes li")).to_have_text([*SHAPES.values()])
    expect(page.locator("#command")).to_contain_text("/predict/?model=shapes&")
    expect(page.locator("#samples")).to_be_hidden()
    add(page, MIXED)
    expect(card(page, "completed")).to_have_count(1)
    names = card(page, "completed").locator(".detections .name")
    assert set(names.all_text_contents()) == set(SHAPES.values())
    choice.select_option("codes")
    add(page, MIXED)
    expect(card(page, "completed")).to_have_count(2)
    latest = card(page, "completed").first.locator(".detections .name")
    assert set(latest.all_text_contents()) == {"qr_code", "barcode", "aruco_marker"}
    choice.select_option("shapes")
    page.reload()
    expect(choice).to_have_value("shapes")


def test_one_model_leaves_nothing_to_choose(tabs: Tabs) -> None:
    page = tabs.open().page
    expect(page.locator("#model-name")).to_have_text("demo detects 3 classes")
    expect(page.locator("#model-choice")).to_be_hidden()
