"""Reads docker-compose.yml with Compose's own code, which comes in a wheel and needs no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.machine import bare_environment
from tests.support.stack import ROOT

COMPOSE = Path(sys.executable).with_name("docker-compose")


def config(profile: str = "", env_file: Path | None = None, **environment: str) -> dict[str, Any]:
    """What `docker compose config` makes of docker-compose.yml in this environment and no other."""
    out = subprocess.run(
        [
            str(COMPOSE),
            *("--env-file", str(env_file or os.devnull)),
            *("--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml")),
            *(("--profile", profile) if profile else ()),
            *("config", "--format", "json"),
        ],
        env=bare_environment(HOME="/nonexistent", **environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert "not set" not in out.stderr, out.stderr
    result: dict[str, Any] = json.loads(out.stdout)
    return result
