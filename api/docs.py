"""Serves `/docs`: Swagger UI from files on this host, since the CSP allows no other origin."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).with_name("static")

DESCRIPTION = """
Send an image, get an id at once, fetch the detections and the annotated picture when a worker has
made them.

    curl -F file=@bus.jpg localhost:8000/predict/
    curl localhost:8000/result/TASK_ID

Every error is `application/problem+json` with a stable `code`. A failed *job* is not an error of
the request: 200 with `status: failed`.
"""


def install(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def swagger_ui() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    swagger = str(files("fastapi_offline") / "static")
    app.mount("/docs/assets", StaticFiles(directory=swagger), name="swagger")
