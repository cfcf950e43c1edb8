"""What the documentation and the comments name exists: files, and links between pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.stack import ROOT

FOLDERS = "api|bench|deploy|docs|models|shared|tests|worker|yolo_queue"
LAYERS = "acceptance|browser|chaos|deploy|integration|topology|unit"
NAMED = re.compile(
    rf"(?<![\w./-])((?:{FOLDERS}|{LAYERS})/[\w./-]+\.(?:py|lua|md|ya?ml|json|png))\b"
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
OLD = ("CHANGELOG.md", "docs/decisions/")
"""They tell of files that were there at the time."""

tracked = subprocess.run(
    ["git", "ls-files"],  # noqa: S607
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
pages = [name for name in tracked if name.endswith(".md")]
sources = [name for name in tracked if name.endswith((".py", ".lua"))]


def exists(name: str) -> bool:
    return any((ROOT / folder / name).exists() for folder in ("", "tests"))


@pytest.mark.parametrize("page", [page for page in pages if not page.startswith(OLD)])
def test_files_that_a_page_names_exist(page: str) -> None:
    assert [name for name in NAMED.findall((ROOT / page).read_text()) if not exists(name)] == []


@pytest.mark.parametrize("page", pages)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = LINK.findall((ROOT / page).read_text())
    assert [link for link in links if not (folder / link).exists()] == []


def test_files_that_the_code_names_exist() -> None:
    missing = {
        f"{source}: {name}"
        for source in sources
        if Path(source).name != Path(__file__).name
        for name in NAMED.findall((ROOT / source).read_text())
        if not exists(name) and "NAME" not in name
    }
    assert missing == set()
