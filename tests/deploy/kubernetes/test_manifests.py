"""The rendered objects are valid, pinned and without a secret of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.kubernetes import (
    MANIFESTS,
    OVERLAYS,
    SECOND_MODEL,
    Object,
    containers,
    kustomize_command,
    make_secrets,
    workloads,
)
from tests.support.kubernetes_crds import SCHEMAS
from tests.support.stack import ROOT

# The oldest has the preStop pause (`sleep`) without a feature gate.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(any_objects: list[Object], version: str) -> None:
    for one in any_objects:
        if schema := SCHEMAS.get(one["kind"]):
            jsonschema.validate(one, schema)
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_overlay_is_tested() -> None:
    folders = {path.parent.name for path in (MANIFESTS / "overlays").glob("*/kustomization.yaml")}
    assert folders == {*OVERLAYS, SECOND_MODEL}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_without_secrets_nothing_is_rendered(tmp_path: Path, overlay: str) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("secret.env"))
    out = subprocess.run(
        [*kustomize_command(), str(copy / "overlays" / overlay)], capture_output=True, text=True
    )
    assert out.returncode != 0
    assert out.stdout == ""
    assert "secret.env" in out.stderr
    assert "no such file" in out.stderr


def test_secrets_are_made_once_and_only_their_owner_can_read_them(manifests: Path) -> None:
    path = manifests / "overlays" / "cpu" / "secret.env"
    before = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    again = make_secrets(manifests, "cpu")
    assert again.returncode == 1
    assert "already" in again.stderr
    assert path.read_text() == before
    values = re.findall(r"^\w+=(.+)$", before, re.MULTILINE)
    assert len(values) == len(set(values)) == 5  # all but WEBHOOK_SECRET, which starts empty
    assert (manifests / "overlays" / "gpu" / "secret.env").read_text() != before


def test_git_has_no_secret() -> None:
    assert "secret.env" in (MANIFESTS / ".gitignore").read_text().split("\n")
    for path in MANIFESTS.rglob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert not (isinstance(one, dict) and one.get("kind") == "Secret"), path


def test_images_are_pinned(any_objects: list[Object]) -> None:
    release = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release
    for workload in workloads(any_objects):
        for container in containers(workload):
            name, _, tag = container["image"].partition(":")
            assert tag
            assert tag != "latest"
            if name.startswith("yolo-queue"):
                assert tag.removesuffix("-gpu") == release[1]
