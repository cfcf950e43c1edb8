"""Owns the command `yolo-queue`: one sub-command a module."""

from __future__ import annotations

import typer

from cli import dead, detect, doctor, settings_table, stress, up, watch

app = typer.Typer(
    name="yolo-queue",
    help="A self-hosted job queue for YOLO image inference.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command("up")(up.up)
app.command("detect")(detect.detect)
app.command("watch")(watch.watch)
app.command("doctor")(doctor.doctor)
app.command("stress")(stress.stress)
app.command("settings")(settings_table.settings)
app.add_typer(dead.app, name="dead")

if __name__ == "__main__":
    app()
