"""An image on the page, as a person sees it: from the file to boxes, or to a reason."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from shared.image_header import FORMATS
from tests.browser.conftest import Tab, Tabs, held_workers
from tests.browser.page_actions import MIXED, add, card, file_of, job_ids
from tests.support.camera_files import camera_files
from tests.support.images import SAMPLES, sample, undecodable
from tests.support.machine import wanted
from tests.support.stack import ROOT, Stack

SCREENSHOT = ROOT / "docs" / "images" / "page.png"


def edges_drawn(page: Page, client: httpx.Client) -> dict[str, bool]:
    """Whether the left edge of each class's detection has its colour on the screen."""
    job = client.get(f"/result/{job_ids(page)[0]}").json()
    picture = Image.open(io.BytesIO(page.locator(".frame").screenshot())).convert("RGB")
    scale = picture.width / job["width"]
    drawn = {}
    for found in job["detections"]:
        if found["confidence"] >= 0.25:
            box = found["box"]
            x, y = round(box["x1"] * scale), round((0.4 * box["y1"] + 0.6 * box["y2"]) * scale)
            # The line is 2.5 pixels wide and may begin between two.
            pixels = [picture.getpixel((x + offset, y)) for offset in (-1, 0, 1)]
            drawn[found["name"]] = any(is_near(p, CLASS_COLOURS[found["name"]]) for p in pixels)
    return drawn


CLASS_COLOURS = {
    "qr_code": (255, 178, 36),
    "barcode": (76, 201, 240),
    "aruco_marker": (140, 233, 154),
}


def is_near(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=True))


def test_an_image_goes_through_its_states_to_boxes_in_the_picture(
    tab: Tab, stack: Stack, client: httpx.Client
) -> None:
    page = tab.page
    with held_workers(stack):
        add(page, MIXED)
        expect(card(page, "queued").locator(".note")).to_contain_text("Next in line")
    expect(card(page, "completed")).to_have_count(1)
    states = page.evaluate("window.seenStates")
    expected = ["uploading", "queued", "processing", "completed"]
    assert [state for state in dict.fromkeys(states) if state in expected] == expected

    assert edges_drawn(page, client) == dict.fromkeys(CLASS_COLOURS, True)
    expect(page.locator(".detections li:visible")).to_have_count(3)
    expect(page.locator(".timing-legend")).to_contain_text("infer")
    expect(page.locator("#announcer")).to_contain_text("mixed.jpg: completed, 1 ")

    # The slider acts on what is there: no box, all boxes, no request.
    submissions = [request for request in tab.requests if request.method == "POST"]
    page.locator("#confidence").press("End")
    expect(page.locator(".detections li:visible")).to_have_count(0)
    expect(page.locator(".found")).to_contain_text("Nothing found")
    assert edges_drawn(page, client) == dict.fromkeys(CLASS_COLOURS, False)
    page.locator("#confidence").press("Home")
    expect(page.locator(".detections li:visible").first).to_be_visible()
    assert page.locator(".detections li:visible").count() >= 3
    assert [request for request in tab.requests if request.method == "POST"] == submissions


def test_a_row_shows_its_box_to_pointer_and_keyboard(tab: Tab) -> None:
    page = tab.page
    add(page, MIXED)
    rows = page.locator(".detections button")
    rows.nth(1).hover()
    expect(page.locator(".shape.active")).to_have_count(1)
    expect(page.locator(".shape").nth(1)).to_contain_class("active")
    page.locator("h1").hover()
    expect(page.locator(".shape.active")).to_have_count(0)
    rows.nth(0).focus()
    expect(page.locator(".shape").nth(0)).to_contain_class("active")
    page.keyboard.press("Enter")
    expect(rows.nth(0)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Tab")
    expect(page.locator(".shape").nth(1)).to_contain_class("active")


def test_a_queued_image_is_cancelled(tab: Tab, stack: Stack, client: httpx.Client) -> None:
    page = tab.page
    with held_workers(stack):
        add(page, MIXED, str(SAMPLES / "screen.jpg"))
        expect(card(page, "queued")).to_have_count(2)
        page.locator(".card", has_text="screen.jpg").get_by_role("button", name="Cancel").click()
        expect(card(page, "cancelled")).to_have_count(1)
    expect(card(page, "completed")).to_have_count(1)
    states = [client.get(f"/result/{task_id}").json()["status"] for task_id in job_ids(page)]
    assert sorted(states) == ["cancelled", "completed"]


@pytest.mark.parametrize(
    ("name", "suffix", "shown"),
    [("heic-irot-exif-6", "heic", False), ("jpeg-hdr-iphone", "jpg", True)],
)
def test_a_phones_files_are_shown_or_have_a_placeholder(
    tab: Tab, stack: Stack, name: str, suffix: str, shown: bool
) -> None:
    """Chromium knows no HEIC: a placeholder says so, then the service's drawing takes its place."""
    page = tab.page
    picture = Image.open(io.BytesIO(sample())).convert("RGB")
    data = next(file.data for file in camera_files(picture) if file.name == name)
    with held_workers(stack):
        # As Chromium sees it on a system that does not know the suffix: without a type.
        add(page, file_of(f"IMG_0001.{suffix}", data, "image/jpeg" if shown else ""))
        expect(card(page, "queued")).to_have_count(1)
        expect(page.locator(".stage img")).to_be_visible(visible=shown)
        placeholder = page.locator(".placeholder")
        if not shown:
            expect(placeholder).to_contain_text("This browser cannot show such a file")
        expect(placeholder).to_be_visible(visible=not shown)
    expect(card(page, "completed")).to_have_count(1)
    expect(page.locator(".stage img")).to_be_visible()
    expect(page.locator(".detections li:visible")).to_have_count(3)
    size = page.locator(".stage img").evaluate("i => [i.naturalWidth, i.naturalHeight]")
    assert (size[0] < size[1]) == (picture.width < picture.height), "upright"


def test_the_page_says_which_files_it_takes(tab: Tab) -> None:
    expect(tab.page.locator("#formats")).to_have_text(f"{FORMATS}, up to 20 MB each.")
    accepted = tab.page.locator("#files").get_attribute("accept") or ""
    assert {"image/*", ".heic", ".avif"} <= set(accepted.split(","))


def test_failures_are_explained(tab: Tab) -> None:
    page = tab.page
    tab.accept_refusals = True
    add(page, file_of("rubbish.png", undecodable()))
    expect(card(page, "failed").locator(".note")).to_contain_text("decode")
    add(page, file_of("really.jpg", b"%PDF-1.7 no image", "image/jpeg"))
    expect(card(page, "refused").locator(".note")).to_contain_text("JPEG")
    add(page, file_of("notes.txt", b"text", "text/plain"))
    expect(page.locator(".card", has_text="notes.txt").locator(".note")).to_have_text(
        "This is not an image but text/plain."
    )
    for name in ("rubbish.png", "really.jpg", "notes.txt"):
        expect(page.locator(".card", has_text=name).locator("progress")).to_be_hidden()


def test_an_upload_waits_for_a_full_queue(tab: Tab) -> None:
    page = tab.page
    tab.accept_refusals = True
    problem = {"detail": "The queue is full.", "code": "queue_full", "retryable": True}
    keys: list[str] = []

    def once(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            return route.continue_()
        headers = {"Retry-After": "1"}
        return route.fulfill(status=503, headers=headers, body=json.dumps(problem))

    page.route("**/predict/*", once)
    add(page, MIXED)
    expect(card(page, "retrying").locator(".note")).to_have_text(
        "The queue is full. Trying again in 1 s."
    )
    expect(card(page, "completed")).to_have_count(1)
    assert len(keys) == 2
    assert len(set(keys)) == 1, "a repeated upload is the same job"


def test_a_reload_resumes_what_is_under_way(tab: Tab, stack: Stack) -> None:
    page = tab.page
    with held_workers(stack):
        add(page, MIXED, str(SAMPLES / "qr_code.jpg"))
        expect(card(page, "queued")).to_have_count(2)
        page.reload()
        expect(card(page, "queued")).to_have_count(2)
    expect(card(page, "completed")).to_have_count(2)
    for name, count in (("mixed.jpg", 3), ("qr_code.jpg", 1)):
        resumed = page.locator(".card", has_text=name)
        expect(resumed.locator("img")).to_be_visible()
        expect(resumed.locator(".detections li:visible")).to_have_count(count)
    page.reload()
    expect(card(page, "completed")).to_have_count(2)


def test_two_tabs_of_many_images_do_not_starve_each_other(tabs: Tabs, stack: Stack) -> None:
    """A browser has six connections to a host for all its tabs."""
    context = tabs.context()
    pages = [tabs.open(context=context).page for _ in range(2)]
    with held_workers(stack):
        for page, name in zip(pages, ("mixed.jpg", "screen.jpg"), strict=True):
            add(page, *(file_of(f"{i}-{name}", sample(name), "image/jpeg") for i in range(8)))
        for page in pages:
            expect(card(page, "queued")).to_have_count(8)
    for page, name in zip(pages, ("mixed.jpg", "screen.jpg"), strict=True):
        expect(card(page, "completed")).to_have_count(8)
        expect(page.locator(".card", has_text=name)).to_have_count(8)
    page = pages[0]
    page.get_by_role("button", name="Clear finished").click()
    expect(card(page)).to_have_count(0)
    expect(card(pages[1], "completed")).to_have_count(8)


def test_results_can_be_copied_and_saved(tabs: Tabs) -> None:
    tab = tabs.open(permissions=["clipboard-read", "clipboard-write"])
    page = tab.page
    add(page, file_of("it's a label.jpg", sample(), "image/jpeg"))
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert command[0] == "curl"
    assert "file=@it's a label.jpg" in command
    assert command[-1] == f"{tab.url}/predict/?model=demo&conf=0.25&annotate=false"

    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").click()
    job = json.loads(download.value.path().read_bytes())
    assert download.value.suggested_filename == "it's a label.json"
    assert sorted(found["name"] for found in job["detections"]) == sorted(CLASS_COLOURS)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    with Image.open(download.value.path()) as picture:
        assert (picture.format, picture.size) == ("JPEG", (job["width"], job["height"]))

    page.locator(".stage").hover()
    page.get_by_role("button", name="Service's drawing").click()
    expect(page.get_by_role("button", name="Service's drawing")).to_have_attribute(
        "aria-pressed", "true"
    )


@pytest.mark.skipif(not wanted("SAVE_SCREENSHOTS"), reason="SAVE_SCREENSHOTS is not set")
def test_zz_screenshot_for_the_readme(tabs: Tabs) -> None:
    page = tabs.open(viewport={"width": 1320, "height": 1010}).page
    for name in ("barcode.jpg", "screen.jpg", "qr_code.jpg", "aruco_marker.jpg", "mixed.jpg"):
        add(page, str(SAMPLES / name))
        expect(page.locator(".card", has_text=name)).to_have_attribute("data-state", "completed")
    waiting, _, throughput, _ = page.locator("#strip .value").all()
    expect(throughput).not_to_have_text("0")
    expect(waiting).to_have_text("0")
    page.locator("h1").hover()
    page.evaluate("scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").quantize(256).save(SCREENSHOT, optimize=True)
    assert SCREENSHOT.stat().st_size < 400_000
