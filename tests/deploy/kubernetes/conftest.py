"""Renders every overlay once, from a copy that has secrets."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from shared.settings import Settings
from tests.support.kubernetes import (
    MANIFESTS,
    OVERLAYS,
    SECOND_MODEL,
    Object,
    Rendered,
    make_secrets,
    render,
)

EVERYTHING = "everything"
"""An overlay made for the tests: that of the CPU with every optional component."""

Gateway = Callable[[Settings], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests in which every overlay has its secrets; one overlay is added."""
    copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("secret.env"))
    for overlay in (*OVERLAYS, SECOND_MODEL):
        url = ["rediss://user:word@redis.example.com:6380/0"] if "external" in overlay else []
        make_secrets(copy, overlay, *url)
    shutil.copytree(copy / "overlays" / "cpu", copy / "overlays" / EVERYTHING)
    path = copy / "overlays" / EVERYTHING / "kustomization.yaml"
    text = path.read_text()
    path.write_text(text.replace("  # - ../../components/", "  - ../../components/"))
    assert path.read_text() != text
    return copy


@pytest.fixture(scope="session")
def rendered(manifests: Path) -> Rendered:
    return {
        name: render(manifests / "overlays" / name)
        for name in (*OVERLAYS, SECOND_MODEL, EVERYTHING)
    }


@pytest.fixture(params=(*OVERLAYS, EVERYTHING, SECOND_MODEL))
def any_objects(request: pytest.FixtureRequest, rendered: Rendered) -> list[Object]:
    """Of an overlay, or of what goes beside one."""
    return rendered[request.param]


@pytest.fixture(params=(*OVERLAYS, EVERYTHING))
def objects(request: pytest.FixtureRequest, rendered: Rendered) -> list[Object]:
    return rendered[request.param]


@pytest.fixture
def gateway() -> Gateway:
    """`async with gateway(settings) as client`: a gateway in this process."""

    @asynccontextmanager
    async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(settings)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://gateway"
            ) as client,
        ):
            yield client

    return running
