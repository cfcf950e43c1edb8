"""What `GET /page-config` tells the page."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from api.app import create_app
from shared.settings import Settings


def page_config(settings: Settings) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        transport = httpx.ASGITransport(app=create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://gpu-box:8000") as client:
            return dict((await client.get("/page-config")).json())

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("flower_url", "link"),
    [
        ("", "http://gpu-box:5555/"),
        ("https://flower.example.org/", "https://flower.example.org/"),
        ("none", None),
    ],
)
def test_where_the_link_to_flower_leads(flower_url: str, link: str | None) -> None:
    assert page_config(Settings(flower_url=flower_url))["flower_url"] == link
