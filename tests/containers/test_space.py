"""The Space's image as a Space runs it: one container, user 1000, port 7860, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.containers.engine import Engine
from tests.containers.images import SPACE
from tests.support.chromium import chromium
from tests.support.images import SAMPLES
from tests.support.stack import free_port, wait_until

READY_SECONDS = 120
STOP_SECONDS = 60


@pytest.fixture(scope="module")
def space(engine: Engine, built: None) -> Iterator[tuple[str, str]]:
    """Its container, and where it is."""
    port = free_port()
    container = engine.docker(
        *("run", "--detach", "--user", "1000", "--publish", f"127.0.0.1:{port}:7860", SPACE)
    ).strip()
    try:
        yield container, f"http://127.0.0.1:{port}"
    finally:
        engine.docker("rm", "--force", "--volumes", container)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: Playwright's event loop must not be around for other tests."""
    with chromium() as browser:
        yield browser


def test_a_visitor_uploads_a_picture_and_sees_its_boxes(
    space: tuple[str, str],
    engine: Engine,
    browser: Browser,
) -> None:
    container, url = space

    def healthy() -> bool:
        state = "{{.State.Health.Status}}"
        return engine.docker("inspect", "--format", state, container).strip() == "healthy"

    wait_until(healthy, seconds=READY_SECONDS, what="the Space is healthy")
    page = browser.new_page()
    page.goto(url)
    page.set_input_files("input[type=file]", str(SAMPLES / "mixed.jpg"))
    expect(page.locator("[data-state=completed]").first).to_be_visible()
    log = engine.docker("logs", container)
    assert "exporting" not in log, "the export is in the image"
    users = engine.docker("top", container, "-eo", "user:20,pid,args").splitlines()[1:]
    assert len(users) >= 5
    assert not [line for line in users if line.startswith(("root", "0 "))]


def test_it_stops_when_it_is_told(space: tuple[str, str], engine: Engine) -> None:
    container, url = space
    assert httpx.get(f"{url}/ready").status_code == 200
    engine.docker("stop", "--time", str(STOP_SECONDS), container)
    shown = engine.docker("inspect", "--format", "{{.State.ExitCode}}", container).strip()
    assert shown in ("0", "143"), engine.docker("logs", "--tail", "50", container)
