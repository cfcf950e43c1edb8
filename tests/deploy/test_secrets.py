"""deploy/make-secrets makes up the passwords of docker-compose.yml once; .env overrides them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.machine import bare_environment
from tests.support.stack import ROOT

SCRIPT = ROOT / "deploy" / "make-secrets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("redis", "flower", "grafana"):
        (tmp_path / name).mkdir()
    return tmp_path


def make(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), str(folder)],  # noqa: S607
        env=bare_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_passwords_are_made_up_once_and_printed_once(folder: Path) -> None:
    first = make(folder)
    assert first.returncode == 0, first.stderr
    files = written(folder)
    assert set(files) == {"redis/env", "redis/redis.conf", "flower/env", "grafana/password"}
    password = files["redis/redis.conf"].split()[1]
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert f"redis://:{password}@redis:6379/0" in files["redis/env"]
    flower = files["flower/env"].strip().partition("FLOWER_BASIC_AUTH=")[2]
    assert flower in first.stdout
    assert files["grafana/password"].strip() in first.stdout
    assert password not in first.stdout, "nobody types this one"

    second = make(folder)
    assert (second.returncode, second.stdout) == (0, "")
    assert written(folder) == files


def test_two_installations_differ(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("redis", "flower", "grafana"):
        (other / name).mkdir()
    make(folder)
    make(other)
    for name, text in written(folder).items():
        assert written(other)[name] != text


def test_passwords_from_env_win_and_are_not_printed(folder: Path) -> None:
    make(folder)
    out = make(folder, REDIS_PASSWORD="mine", FLOWER_BASIC_AUTH="me:hush", GRAFANA_PASSWORD="g !")
    assert (out.returncode, out.stdout) == (0, "")
    files = written(folder)
    assert files["redis/redis.conf"] == "requirepass mine\n"
    assert files["flower/env"] == "export FLOWER_BASIC_AUTH=me:hush\n"
    assert files["grafana/password"] == "g !\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"REDIS_PASSWORD": "a@b"},
        {"REDIS_PASSWORD": "$(reboot)"},
        {"FLOWER_BASIC_AUTH": "no-password"},
        {"FLOWER_BASIC_AUTH": "me:a b"},
    ],
)
def test_what_would_break_a_url_or_a_shell_is_refused(
    folder: Path, environment: dict[str, str]
) -> None:
    out = make(folder, **environment)
    assert out.returncode == 1
    assert next(iter(environment)) in out.stderr


def test_the_files_are_what_their_readers_expect(folder: Path) -> None:
    """As docker-compose.yml's entrypoint and health check do it."""
    make(folder)
    source = f'. {folder}/redis/env && . {folder}/flower/env && exec "$@"'
    out = subprocess.run(
        ["sh", "-c", source, "sh", "env"],  # noqa: S607
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.partition("=")[0] for line in out.splitlines()}
    assert {"REDIS_URL", "REDISCLI_AUTH", "FLOWER_BASIC_AUTH"} <= names
