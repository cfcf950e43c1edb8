"""`yolo-queue dead`: lists, shows, retries and deletes dead letters."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shared.errors import InvalidSettings, ModelNotFound
from shared.job.dead_letters import DeadLetters
from shared.job.worker_store import WorkerStore
from shared.redis_access.client import UNAVAILABLE
from shared.settings import load_settings
from yolo_queue.cli.service_options import FAILED, fail

app = typer.Typer(help="Dead letters: jobs that failed MAX_ATTEMPTS times.", no_args_is_help=True)
TaskId = Annotated[str, typer.Argument(help="An id from `yolo-queue dead list`.")]


@app.command("list")
def list_letters() -> None:
    """List the dead letters, newest first."""
    table = Table("id", "died", "code", "attempts", "bytes", "type")
    for letter in _letters().list():
        died = datetime.fromtimestamp(letter.died_ms / 1000, UTC).isoformat(timespec="seconds")
        table.add_row(
            letter.task_id,
            died,
            str(letter.error["code"]),
            str(len(letter.history)),
            str(letter.size_bytes),
            letter.content_type,
        )
    Console().print(table)


@app.command()
def show(
    task_id: TaskId,
    save_image: Annotated[
        Path | None, typer.Option(help="Also write its image to this file.")
    ] = None,
) -> None:
    """Print a dead letter as JSON: parameters, error and the history of its attempts."""
    letters = _letters()
    letter = letters.find(task_id)
    if letter is None:
        raise _missing(task_id)
    typer.echo(json.dumps(asdict(letter), indent=2))
    if save_image:
        image = letters.image(task_id)
        if image is None:
            raise _missing(task_id)
        save_image.write_bytes(image)


@app.command()
def retry(task_id: TaskId) -> None:
    """Submit the image again as a new job, and print the new id."""
    try:
        new_id = _letters().retry(task_id)
    except ModelNotFound as error:
        typer.echo(f"{error.message} Start one, or keep the letter.", err=True)
        raise typer.Exit(FAILED) from None
    if new_id is None:
        raise _missing(task_id)
    typer.echo(new_id)


@app.command()
def purge(
    task_ids: Annotated[
        list[str] | None, typer.Argument(help="Delete these; all by default.")
    ] = None,
) -> None:
    """Delete dead letters and their images."""
    letters = _letters()
    count = letters.purge(task_ids or [letter.task_id for letter in letters.list()])
    typer.echo(f"{count} deleted")


def _letters() -> DeadLetters:
    try:
        settings = load_settings()
    except InvalidSettings as error:
        raise fail(error.message) from None
    store = WorkerStore(settings)
    try:
        store.redis.ping()
    except UNAVAILABLE:
        url = settings.masked_redis_url()
        raise fail(f"Redis at {url} does not answer: start it, or correct REDIS_URL.") from None
    return DeadLetters(settings, store)


def _missing(task_id: str) -> typer.Exit:
    typer.echo(
        f"There is no dead letter {task_id} with an image (see `yolo-queue dead list`), or the "
        "queue is full and you can try again later.",
        err=True,
    )
    return typer.Exit(FAILED)
