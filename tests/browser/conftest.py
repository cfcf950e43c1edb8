"""Opens pages of the real service in Chromium and checks each one at the end of its test.

Nothing may be on the console, and no request may go to another host.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from tests.support.chromium import chromium
from tests.support.stack import Stack

REFUSED_BY_SERVER = "Failed to load resource: the server responded with a status of"
RECORD_STATES = """
window.seenStates = [];
new MutationObserver((changes) => {
  for (const { target } of changes) window.seenStates.push(target.dataset.state);
}).observe(document, { subtree: true, attributeFilter: ["data-state"] });
"""

expect.set_options(timeout=20_000)


class Tab:
    """One watched page of a browser context."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.console: list[str] = []
        self.requests: list[Request] = []
        self.accept_refusals = False
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("request", lambda request: self.requests.append(request))
        page.add_init_script(RECORD_STATES)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(message.text)

    def open(self) -> Page:
        self.page.goto(self.url)
        return self.page

    def check(self) -> None:
        mishaps = [
            text
            for text in self.console
            if not (self.accept_refusals and text.startswith(REFUSED_BY_SERVER))
        ]
        assert mishaps == []
        schemes = ("blob:", "data:")
        hosts = {
            urlsplit(request.url).netloc
            for request in self.requests
            if not request.url.startswith(schemes)
        }
        assert hosts <= {urlsplit(self.url).netloc}


class Tabs:
    """Opens pages, and checks each at the end of the test."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._tabs: list[Tab] = []

    def context(self, **options: Any) -> Any:
        return self._browser.new_context(**options)

    def open(self, *, url: str = "", context: Any = None, **options: Any) -> Tab:
        tab = Tab((context or self.context(**options)).new_page(), url or self._url)
        self._tabs.append(tab)
        tab.open()
        return tab

    def finish(self) -> None:
        for tab in self._tabs:
            tab.check()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: Playwright's event loop must not be around for other tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def tabs(browser: Browser, stack: Stack) -> Iterator[Tabs]:
    opened = Tabs(browser, stack.url)
    yield opened
    try:
        opened.finish()
    finally:
        for context in browser.contexts:
            context.close()


@pytest.fixture
def tab(tabs: Tabs) -> Tab:
    return tabs.open()


@contextmanager
def held_workers(stack: Stack) -> Iterator[None]:
    """Stop the workers' processes for a while: what is submitted stays queued."""
    for worker in stack.workers:
        os.killpg(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in stack.workers:
            os.killpg(worker.pid, signal.SIGCONT)
