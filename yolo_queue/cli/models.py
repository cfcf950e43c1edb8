"""`yolo-queue models`: shows which models there are, in which versions, and who serves them."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yolo_queue import ApiError, Client, ModelState
from yolo_queue.cli.service_options import DEFAULT_URL, ApiKey, Url, unusable


def models(url: Url = DEFAULT_URL, api_key: ApiKey = "") -> None:
    """Show the models, their versions and who serves them.

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
    table = Table()
    # Not cut on a narrow terminal: `drain_model` wants a name and a version.
    for title in ("model", "version", "task", "classes", "ready", "runtime"):
        table.add_column(title, no_wrap=True)
    table.add_column("workers", overflow="fold")
    for model in models:
        name = escape(model.model) + ("\n(default)" if model.default else "")
        if not model.versions:
            table.add_row(name, "", "", "", "0", "", "[red]none yet[/red]")
        for number, version in enumerate(model.versions):
            table.add_row(
                name if number == 0 else "",
                version.short,
                version.task,
                str(len(version.names)),
                str(version.ready_processes),
                ", ".join(version.runtimes),
                "\n".join(map(escape, version.workers)) or "[red]none[/red]",
            )
    return table
