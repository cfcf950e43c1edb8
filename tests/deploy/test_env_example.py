""".env.example lists every setting and every variable of docker-compose.yml, with its default."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO

from shared.settings import Settings
from tests.support.compose import config
from tests.support.stack import ROOT
from yolo_queue.server.settings_table import Form, default_text
from yolo_queue.server.settings_table import settings as print_settings

MARKER = "# ---- settings of the service; made by `yolo-queue settings --format env` ----\n"


def test_env_example_has_every_setting_as_it_is_now() -> None:
    out = StringIO()
    with redirect_stdout(out):
        print_settings(Form.ENV)
    text = (ROOT / ".env.example").read_text()
    assert text.count(MARKER) == 1
    assert MARKER + text.partition(MARKER)[2] == out.getvalue(), (
        "run: sed -i '/^# ---- settings/,$d' .env.example && "
        ".venv/bin/yolo-queue settings --format env >> .env.example"
    )
    for name, field in Settings.model_fields.items():
        assert f"\n#{name.upper()}={default_text(field)}\n" in text


def test_env_example_has_every_variable_of_compose_with_its_default() -> None:
    source = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "docker-compose.yml").read_text())
    used = dict(re.findall(r"(?<!\$)\$\{(\w+):?-([^}]*)\}", source))
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", source)) == set(used), "every one has a default"
    own = (ROOT / ".env.example").read_text().partition(MARKER)[0]
    settings = {name.upper() for name in Settings.model_fields}
    for name, default in used.items():
        if name not in settings:
            assert f"\n#{name}={default}\n" in own, f"{name}={default}"
    named = set(re.findall(r"(?m)^#([A-Z_0-9]+)=", own))
    assert named == set(used) - settings, "and none that compose does not know"


def test_a_copy_of_env_example_changes_nothing() -> None:
    assert config("monitoring", ROOT / ".env.example") == config("monitoring")
