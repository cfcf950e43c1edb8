"""The installed libraries still have what we use of them beside their public interface.

A new version that fails here may break the service without a word: look at what it does instead,
adapt, and raise the bound in pyproject.toml.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.borrowed import BORROWED, UNBOUNDED
from tests.support.borrowed.base import Borrowed, Name
from worker.model.weights import be_quiet_and_offline

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
LIBRARIES = sorted({borrowed.library for borrowed in BORROWED})


@pytest.mark.parametrize(
    ("borrowed", "name"),
    [
        pytest.param(borrowed, name, id=f"{borrowed.library}-{name.path}")
        for borrowed in BORROWED
        for name in borrowed.names
    ],
)
def test_a_library_still_has_what_we_use_of_it(borrowed: Borrowed, name: Name) -> None:
    be_quiet_and_offline()
    if fault := name.fault():
        pytest.fail(
            f"{borrowed.library} {version(borrowed.library)}: {name.path} {fault}. "
            f"{borrowed.used_in} uses it, because {borrowed.why}."
        )


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name not in UNBOUNDED])
def test_it_has_an_upper_bound_that_the_installed_version_keeps(library: str) -> None:
    groups = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    required = [
        requirement
        for group in groups.values()
        for requirement in (Requirement(entry) for entry in group if isinstance(entry, str))
        if requirement.name == library
    ]
    assert required, f"{library} is used beside its public interface; no group names it"
    for requirement in required:
        bounds = [part for part in requirement.specifier if part.operator in ("<", "==", "~=")]
        assert bounds, f"{requirement} has no upper bound"
        assert version(library) in requirement.specifier
