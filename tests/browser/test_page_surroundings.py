"""The page around the images: ways in, the strip, keys, accessibility, narrow screens."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from api.routes.page import find_samples
from tests.browser.conftest import Tab, Tabs, held_workers
from tests.browser.page_actions import MIXED, add, card, file_of
from tests.support.images import SAMPLES, sample, undecodable
from tests.support.stack import Stack

TRANSFER = """
([kind, content]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("main").dispatchEvent(event);
}
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway with a key and no worker: what is submitted stays queued."""
    with Stack(tmp_path_factory.mktemp("guarded"), API_KEYS="alice-key") as stack:
        yield stack.start(workers=0)


def test_paste_drop_and_samples(tab: Tab) -> None:
    page = tab.page
    content = base64.b64encode(sample()).decode()
    for kind in ("paste", "drop"):
        page.evaluate(TRANSFER, [kind, content])
        expect(page.locator(".card", has_text=f"{kind}.jpg")).to_have_count(1)
    names = page.locator("#samples button")
    expect(names).to_have_text(["qr code", "barcode", "aruco marker", "mixed", "screen"])
    names.first.click()
    expect(page.locator(".card", has_text="qr_code.jpg")).to_have_count(1)
    expect(card(page, "completed")).to_have_count(3)


def test_samples_need_no_folder(tmp_path: Path) -> None:
    assert find_samples(tmp_path) == []
    assert {sample["title"] for sample in find_samples(SAMPLES)} >= {"bus", "zidane", "mixed"}


def test_the_strip_and_the_model(tab: Tab, stack: Stack) -> None:
    page = tab.page
    waiting, running, throughput, workers = page.locator("#strip .value").all()
    expect(waiting).to_have_text("0")
    expect(running).to_have_text("0")
    expect(workers).to_have_text(str(len(stack.workers)))
    expect(page.locator("#strip .lamp.idle")).to_have_count(2)
    expect(page.locator("#model-name")).to_have_text("demo detects 3 classes")
    expect(page.locator("#model-classes li")).to_have_text(["qr_code", "barcode", "aruco_marker"])
    with held_workers(stack):
        add(page, MIXED, MIXED, MIXED)
        expect(waiting).to_have_text("3")
    expect(card(page, "completed")).to_have_count(3)
    expect(waiting).to_have_text("0")
    expect(throughput).not_to_have_text("0")
    expect(page.get_by_role("link", name="API docs")).to_have_attribute("href", "/docs")
    expect(page.get_by_role("link", name="Flower")).to_have_attribute(
        "href", "http://127.0.0.1:5555/"
    )


def test_a_key_is_asked_for_and_stays_in_the_tab(tabs: Tabs, guarded: Stack) -> None:
    context = tabs.context()
    tab = tabs.open(url=guarded.url, context=context)
    tab.accept_refusals = True
    page = tab.page
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert not any(request.url.endswith("/queue") for request in tab.requests), (
        "nothing without a key"
    )
    page.get_by_label("API key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The API key is not valid.")
    page.get_by_label("API key", exact=True).fill("alice-key")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#strip .value").first).to_have_text("0")
    add(page, MIXED, str(SAMPLES / "screen.jpg"))
    expect(card(page, "queued")).to_have_count(2)
    # Uploads run side by side: either of the two may be first.
    expect(page.locator(".card .note", has_text="1 before it")).to_have_count(1)

    page.reload()
    expect(card(page, "queued")).to_have_count(2)
    expect(dialog).to_be_hidden()
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    other = tabs.open(url=guarded.url, context=context).page
    expect(other.get_by_role("dialog")).to_be_visible()
    expect(card(other)).to_have_count(0)

    page.locator(".card", has_text="screen.jpg").get_by_role("button", name="Cancel").click()
    expect(card(page, "cancelled")).to_have_count(1)
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_be_visible()
    expect(card(page)).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(tabs: Tabs, stack: Stack, theme: str) -> None:
    tab = tabs.open(color_scheme=theme, reduced_motion="reduce")
    tab.accept_refusals = True
    page = tab.page
    expect(page.locator("#samples button")).to_have_count(5)
    check_with_axe(page)
    add(page, MIXED)
    add(page, file_of("rubbish.png", undecodable()), file_of("x.txt", b"x", "text/plain"))
    for state in ("completed", "failed", "refused"):
        expect(card(page, state)).to_have_count(1)
    with held_workers(stack):
        add(page, MIXED)
        expect(card(page, "queued")).to_have_count(1)
        check_with_axe(page)
    page.locator(".detections button").first.focus()
    check_with_axe(page)


def check_with_axe(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_many_images_fit_the_width_of_a_phone(tabs: Tabs) -> None:
    tab = tabs.open(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = tab.page
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    assert page.locator("#photo").get_attribute("capture") == "environment"
    add(page, *(file_of(f"picture {i}.jpg", sample("screen.jpg"), "image/jpeg") for i in range(30)))
    expect(card(page, "completed")).to_have_count(30, timeout=60_000)
    expect(page.locator("#summary")).to_have_text("30 images: 30 completed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


NAME_OF_FOCUSED = "document.activeElement.textContent.trim() || document.activeElement.id"


def test_the_keyboard_reaches_everything_in_order(tab: Tab) -> None:
    page = tab.page
    expect(page.locator("#samples button")).to_have_count(5)
    reached = []
    for _ in range(11):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(NAME_OF_FOCUSED))
    assert reached == [
        *("Skip to your images", "API docs", "Flower", "Choose images", "tiles"),
        *("qr code", "barcode", "aruco marker", "mixed", "screen", "Copy"),
    ]
