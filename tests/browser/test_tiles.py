"""The page's switch for large pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Tabs
from tests.browser.page_actions import add, card
from tests.browser.test_page_surroundings import check_with_axe
from tests.support.images import encoded, many_codes

SWITCH = "Cut large pictures into tiles"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_large_pictures_in_tiles(tabs: Tabs, theme: str, tmp_path: Path) -> None:
    picture = tmp_path / "codes.jpg"
    picture.write_bytes(encoded(many_codes(4, 3)[0], "JPEG", quality=92))
    page = tabs.open(color_scheme=theme).page
    switch = page.get_by_label(SWITCH)
    expect(switch).not_to_be_checked()
    switch.check()
    check_with_axe(page)
    add(page, picture)
    done = card(page, "completed").first
    expect(done.locator(".detections .name:visible")).to_have_count(36)
    tiles = done.get_by_role("button", name="Tiles")
    expect(tiles).to_have_attribute("aria-pressed", "false")
    lines = done.locator(".tiles .light")
    expect(lines).to_have_count(0)
    done.locator(".stage").hover()
    tiles.click()
    expect(tiles).to_have_attribute("aria-pressed", "true")
    assert (lines.get_attribute("d") or "").count("M") == 12
    check_with_axe(page)
    tiles.click()
    expect(lines).to_have_count(0)
    (tmp_path / "small.jpg").write_bytes(encoded(many_codes(1, 1)[0], "JPEG", quality=92))
    add(page, tmp_path / "small.jpg")
    expect(card(page, "completed")).to_have_count(2)
    small = card(page, "completed").first
    expect(small.locator(".detections .name:visible")).to_have_count(3)
    expect(small.get_by_role("button", name="Tiles")).to_be_hidden()
    page.reload()
    expect(page.get_by_label(SWITCH)).to_be_checked()
