"""Owns the options that every command which talks to a service has, and its exit statuses."""

from __future__ import annotations

from typing import Annotated

import typer

from yolo_queue import ApiError

FAILED = 1
"""Exit status: the command did its work, and some of it failed."""
USAGE = 2
"""Exit status: called wrongly, or the service cannot be used at all."""

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="YOLO_QUEUE_URL", help="Where the service is.", rich_help_panel="Service"
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="YOLO_QUEUE_API_KEY",
        help="Your key, where the service asks for one. The variable keeps it out of the history.",
        rich_help_panel="Service",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"


def fail(message: str, *, hint: str = "") -> typer.Exit:
    """Say why nothing can be done; raise what this returns."""
    typer.secho(message, fg="red", err=True)
    if hint:
        typer.echo(hint, err=True)
    return typer.Exit(USAGE)


def unusable(error: ApiError | ValueError, url: str) -> typer.Exit:
    """The exit for a service that refuses or does not answer, with what to do about it."""
    code = getattr(error, "code", "")
    hints = {
        "unreachable": f"Is it running there? `yolo-queue doctor --url {url}` looks closer.",
        "not_authenticated": "Give the key with --api-key or YOLO_QUEUE_API_KEY.",
    }
    return fail(str(error), hint=hints.get(code, ""))
