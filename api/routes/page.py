"""Serves the web page at `/`: its files, its configuration and its sample pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypedDict

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from api.services import services_of
from shared.image_header import FORMATS
from shared.settings import Settings

STATIC = Path(__file__).parent.parent / "static"
SAMPLES = Path(__file__).parent.parent.parent / "models" / "samples"
"""In a checkout and in the image of Dockerfile.api."""

router = APIRouter(include_in_schema=False)


class Sample(TypedDict):
    """A picture to try. `classes`: what it shows. The page offers it only if the model knows one of
    them."""

    url: str
    title: str
    classes: list[str]


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/page-config")
async def page_config(request: Request) -> dict[str, object]:
    """Needs no API key, since it tells the page whether it needs one."""
    services = services_of(request)
    settings = services.settings
    return {
        "flower_url": _flower_url(settings, request.url.hostname or "localhost"),
        "needs_key": bool(services.keys),
        "formats": FORMATS,
        "max_upload_bytes": settings.max_upload_bytes,
        "result_ttl_seconds": settings.result_ttl_seconds,
        "samples": find_samples(SAMPLES),
    }


def _flower_url(settings: Settings, host: str) -> str | None:
    if settings.flower_url:
        return None if settings.flower_url == "none" else settings.flower_url
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.flower_port}/"


def find_samples(folder: Path) -> list[Sample]:
    """The pictures named by an `expected.json` in the folder or in a folder directly below it."""
    samples: list[Sample] = []
    for listing in sorted([*folder.glob("expected.json"), *folder.glob("*/expected.json")]):
        for name, detections in json.loads(listing.read_text()).items():
            path = listing.with_name(name)
            if path.is_file():
                samples.append(
                    Sample(
                        url=f"/samples/{path.relative_to(folder).as_posix()}",
                        title=path.stem.replace("_", " "),
                        classes=sorted({detection["name"] for detection in detections}),
                    )
                )
    return samples


class _Revalidated(StaticFiles):
    """Files that the browser revalidates each time (304 if unchanged), so that it never mixes the
    modules of two versions."""

    def file_response(
        self, full_path: str | os.PathLike[str], *args: object, **kwargs: object
    ) -> Response:
        response = super().file_response(full_path, *args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    app.mount("/page", _Revalidated(directory=STATIC / "page"), name="page")
    if SAMPLES.is_dir():
        app.mount("/samples", StaticFiles(directory=SAMPLES), name="samples")
