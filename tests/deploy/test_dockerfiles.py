"""What a build of the Dockerfiles would not show: pins, digests, what is tracked, and who is named.

`make containers` builds them and tries the images.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from importlib.metadata import distributions

import pytest
import yaml

from tests.support.stack import ROOT

FILES = ("Dockerfile.api", "Dockerfile.worker", "deploy/space/Dockerfile")
each_file = pytest.mark.parametrize("file", FILES)


def instructions(file: str, name: str) -> list[str]:
    """What follows each instruction of this name, continued lines joined."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", text, re.MULTILINE)


@each_file
def test_the_base_is_pinned_and_the_same_everywhere(file: str) -> None:
    for one in FILES:
        (version,) = re.findall(r"^ARG PYTHON_VERSION=(\S+)", (ROOT / one).read_text(), re.M)
        assert re.fullmatch(r"3\.\d+\.\d+", version)
    bases = {line.split()[0] for line in instructions(file, "FROM")} - {"build"}
    assert bases == {"python:${PYTHON_VERSION}-slim-bookworm"}
    assert len({re.findall(r"PYTHON_VERSION=(\S+)", (ROOT / f).read_text())[0] for f in FILES}) == 1


@each_file
def test_what_is_copied_is_in_git(file: str) -> None:
    """A file that only this checkout has would be in an image that is built here."""
    for line in instructions(file, "COPY"):
        words = [word for word in line.split() if not word.startswith("--")]
        if "--from" in line:
            continue
        for source in words[:-1]:
            source = source.replace("${WEIGHTS}", "models/demo.pt")
            tracked = subprocess.run(
                ["git", "ls-files", source],  # noqa: S607
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            assert tracked, f"{source} is not in git"


@each_file
def test_what_is_installed_is_declared_and_constrained(file: str) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    installs = [line for line in instructions(file, "RUN") if "pip install" in line]
    assert len(installs) == 2
    for line in installs:
        assert "--constraint constraints.txt" in line
    assert "--no-build" in installs[-1], "nothing is compiled"
    used = set(re.findall(r"--group (\w+)", installs[-1]))
    assert used
    assert used <= set(groups)


def test_what_the_images_leave_out_would_come_otherwise() -> None:
    """An entry that no package asks for any more should go."""
    wanted = {
        re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
        for one in distributions()
        for requirement in one.requires or ()
    }
    lines = (ROOT / "deploy/image-excludes.txt").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= wanted


@each_file
def test_no_host_is_named(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)
    assert "index-url" not in text


@each_file
def test_sigterm_reaches_python_and_nobody_is_root(file: str) -> None:
    (command,) = instructions(file, "CMD")[-1:]
    assert json.loads(command)[0] == "python", "a shell in between would swallow SIGTERM"
    assert instructions(file, "USER")[-1].partition(":")[0] not in ("root", "0")


def test_the_weights_are_checked_before_they_are_loaded() -> None:
    """Loading a .pt executes code inside it."""
    text = (ROOT / "Dockerfile.worker").read_text()
    (digest,) = re.findall(r"^ARG WEIGHTS_SHA256=(\S+)", text, re.M)
    (weights,) = re.findall(r"^ARG WEIGHTS=(\S+)", text, re.M)
    assert digest == hashlib.sha256((ROOT / weights).read_bytes()).hexdigest()
    assert text.index("sha256sum --check") < text.index("prepare(")


def test_the_space() -> None:
    text = (ROOT / "deploy/space/README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["sdk"], front["app_port"]) == ("docker", 7860)
    assert "PORT=7860" in (ROOT / "deploy/space/Dockerfile").read_text()
    assert front["license"] == "agpl-3.0"
    assert len(front["short_description"]) <= 60
    everything = text + (ROOT / "deploy/space/Dockerfile").read_text()
    assert not re.search(r"(?i)(password|token|key)\s*[=:]\s*\S", everything)
