"""What tests take from the machine they run on: its environment, and tools it may lack.

They read `os.environ` here and nowhere else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""Where programs are found: beside this Python first."""


def environment(**more: str) -> dict[str, str]:
    """For a subprocess: this environment without the settings of a service, and `more`."""
    ours = ("YOLO_", "REDIS_")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(ours)}, **more}


def bare_environment(**more: str) -> dict[str, str]:
    """For a subprocess: nothing but the PATH, and `more`."""
    return {"PATH": os.environ["PATH"], **more}


def wanted(variable: str) -> bool:
    """Whether somebody has set this variable to something."""
    return bool(os.environ.get(variable))


def missing(what: str) -> NoReturn:
    """Skip on a laptop that lacks something; in CI, where it has to be, fail."""
    if wanted("CI"):
        pytest.fail(what)
    pytest.skip(what)
