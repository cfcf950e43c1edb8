"""`yolo-queue models`: shows which models there are, in which versions, and who serves them."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yolo_queue import ApiError, Client, ModelState
from yolo_queue.cli.service_options import DEFAULT_URL, ApiKey, Url, unusable


def models(url: Url = DEFAULT_URL, api_key: ApiKey = "") -> None:
    """Show the models, their versions, who serves them and what waits for them.

    \b
    To change the weights of a model without a gap:
      1. start workers with the new weights under the same name
      2. wait until this shows their version as ready
      3. stop the old workers; they finish their jobs first. To have them take no
         more jobs and stay, for now:
         celery -A worker.app control drain_model NAME VERSION

    Exit status 2 if the service does not answer.
    """
    try:
        with Client(url, api_key or None, retry_seconds=0) as client:
            Console().print(view(client.models()))
    except (ApiError, ValueError) as error:
        raise unusable(error, url) from None


def view(models: list[ModelState]) -> Table:
    """One row a version."""
    table = Table("model")
    table.add_column("version", no_wrap=True, min_width=12)  # what `drain_model` wants
    for title in ("task", "classes", "ready", "runtime", "workers", "waiting"):
        table.add_column(title, overflow="fold")
    for model in models:
        name = escape(model.model) + (" (default)" if model.default else "")
        if not model.versions:
            table.add_row(name, "", "", "", "0", "", "[red]none yet[/red]", str(model.depth))
        for number, version in enumerate(model.versions):
            workers = "\n".join(map(escape, version.workers)) or "[red]none[/red]"
            table.add_row(
                name if number == 0 else "",
                version.short,
                version.task,
                str(len(version.names)),
                str(version.ready_processes),
                ", ".join(version.runtimes),
                workers,
                str(model.depth) if number == 0 else "",
            )
    return table
