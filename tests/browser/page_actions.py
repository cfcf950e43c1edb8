"""Does on the page what a person would do, and finds what the person would look at."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page

from tests.support.images import SAMPLES

MIXED = str(SAMPLES / "mixed.jpg")


def add(page: Page, *files: Any) -> None:
    page.locator("#files").set_input_files(list(files))


def card(page: Page, state: str = "") -> Locator:
    return page.locator(f'.card[data-state="{state}"]' if state else ".card")


def file_of(name: str, content: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def job_ids(page: Page) -> list[str]:
    stored = page.evaluate("sessionStorage.getItem('yolo-queue.jobs')")
    return [job["taskId"] for job in json.loads(stored)]
