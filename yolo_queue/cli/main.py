"""The command `yolo-queue`: one sub-command a module."""

from __future__ import annotations

from importlib.util import find_spec

import typer

from yolo_queue.cli import detect, doctor, stress, watch

app = typer.Typer(
    name="yolo-queue",
    help="A self-hosted job queue for YOLO image inference.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("detect")(detect.detect)
app.command("watch")(watch.watch)
app.command("doctor")(doctor.doctor)
app.command("stress")(stress.stress)

if find_spec("yolo_queue.server"):  # a wheel has the client alone
    from yolo_queue.server import dead, settings_table, up

    app.command("up")(up.up)
    app.command("settings")(settings_table.settings)
    app.add_typer(dead.app, name="dead")

if __name__ == "__main__":
    app()
