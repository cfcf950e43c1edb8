"""The command `yolo-queue`: one subcommand a module."""

from __future__ import annotations

from importlib.util import find_spec

import typer

from yolo_queue.cli import detect, doctor, models, stress, watch
from yolo_queue.cli.service_options import fail

app = typer.Typer(
    name="yolo-queue",
    help="A self-hosted job queue for YOLO image inference.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("detect")(detect.detect)
app.command("watch")(watch.watch)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command("stress")(stress.stress)


def _is_missing(context: typer.Context) -> None:
    """Needs a checkout of the server: a wheel has nothing of it, a worker's image a part."""
    raise fail(
        f"`yolo-queue {context.info_name}` needs a checkout of the server, which is not installed "
        "here: git clone the repository, then `make run` in it."
    )


absent = []
if find_spec("yolo_queue.server"):
    from yolo_queue.server import dead, settings_table

    app.command("settings")(settings_table.settings)
    app.add_typer(dead.app, name="dead")
else:
    absent += ["settings", "dead"]
if find_spec("yolo_queue.server") and find_spec("honcho"):
    from yolo_queue.server import up

    app.command("up")(up.up)
else:
    absent.append("up")
for name in absent:
    any_arguments = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, context_settings=any_arguments)(_is_missing)

if __name__ == "__main__":
    app()
