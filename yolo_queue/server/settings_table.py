"""`yolo-queue settings`: prints the settings, from their definitions, as a table or a .env file."""

from __future__ import annotations

import textwrap
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from shared.settings import Settings


class Form(StrEnum):
    MARKDOWN = "markdown"
    ENV = "env"


def settings(
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="`markdown`: docs/settings.md; `env`: the end of .env.example."
        ),
    ] = Form.MARKDOWN,
) -> None:
    """Print every setting with its default and its meaning."""
    if form is Form.ENV:
        _print_env()
    else:
        _print_markdown()


def _print_markdown() -> None:
    print("# Settings\n")
    print("Environment variables, read once at start. Made by `yolo-queue settings`.\n")
    print("| variable | default | what it is |")
    print("| --- | --- | --- |")
    for name, field in Settings.model_fields.items():
        default = default_text(field)
        text = (field.description or "").replace("|", "\\|")
        print(f"| `{name.upper()}` | {f'`{default}`' if default != '' else ''} | {text} |")


def _print_env() -> None:
    """All commented out, so that a copy of the file changes nothing until it is edited."""
    print("# ---- settings of the service; made by `yolo-queue settings --format env` ----")
    for name, field in Settings.model_fields.items():
        print()
        for line in textwrap.wrap(field.description or "", 96):
            print(f"# {line}")
        print(f"#{name.upper()}={default_text(field)}")


def default_text(field: FieldInfo) -> str:
    """The default as it is written in the environment."""
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return str(default)
