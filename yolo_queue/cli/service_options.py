"""Options and exit statuses of the commands that talk to a service."""

from __future__ import annotations

from typing import Annotated

import typer

from yolo_queue import ApiError, NotAuthenticated, Unreachable

FAILED = 1
"""Exit status: the command ran, and some of its work failed."""
USAGE = 2
"""Exit status: wrong usage, or the service cannot be used at all."""

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="YOLO_QUEUE_URL", help="Address of the service.", rich_help_panel="Service"
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="YOLO_QUEUE_API_KEY",
        help="Your key, if the service needs one. The variable keeps it out of the shell history.",
        rich_help_panel="Service",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"


def fail(message: str, *, hint: str = "") -> typer.Exit:
    """Print why the command cannot go on, and return the exit to raise."""
    typer.secho(message, fg="red", err=True)
    if hint:
        typer.echo(hint, err=True)
    return typer.Exit(USAGE)


def unusable(error: ApiError | ValueError, url: str) -> typer.Exit:
    """Print why the service cannot be used and what to do, and return the exit to raise."""
    hint = f"`yolo-queue doctor --url {url}` finds out why."
    if isinstance(error, Unreachable):
        hint = f"Start the service there, or give its address with --url. {hint}"
    elif isinstance(error, NotAuthenticated):
        hint = "Give your key with --api-key or YOLO_QUEUE_API_KEY."
    elif isinstance(error, ValueError):
        hint = ""
    return fail(str(error), hint=hint)
