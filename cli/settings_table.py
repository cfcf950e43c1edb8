"""Owns `yolo-queue settings`: the table of settings, made from where they are defined."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import Settings


def settings() -> None:
    """Print the table of settings as Markdown (docs/settings.md is this output)."""
    print("# Settings\n")
    print("Environment variables, read once at start. Made by `yolo-queue settings`.\n")
    print("| variable | default | what it is |")
    print("| --- | --- | --- |")
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        text = (field.description or "").replace("|", "\\|")
        print(f"| `{name.upper()}` | {f'`{default}`' if default != '' else ''} | {text} |")
