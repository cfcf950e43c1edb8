"""One engine and one build of the images for all tests of containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, running_engine, why_not
from tests.containers.images import build
from tests.support.machine import missing

BUILD_SECONDS = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the build."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if reason := why_not():
        missing(reason)
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def built(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All images are there, but those that it says could not be had."""
    build(engine, tmp_path_factory.mktemp("build"))
