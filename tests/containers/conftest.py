"""One engine and one build of the images for all tests of containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.compose import Project
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
def not_to_be_had(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of other projects that could neither be pulled nor replaced. All others are there."""
    return build(engine, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def service(engine: Engine, not_to_be_had: list[str]) -> Iterator[Project]:
    """What `docker compose up --scale worker=2` starts."""
    with Project(engine, "yolo-queue-test") as project:
        project.up("--scale", "worker=2")
        yield project
