"""Pytest plugin: run with the scripts of another folder.

pytest -p tests.proofs.scripts_plugin --scripts FOLDER
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.job import scripts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scripts", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    scripts._LUA = config.getoption("scripts")
