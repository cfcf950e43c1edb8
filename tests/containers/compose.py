"""Runs docker-compose.yml as a project of its own, on free ports, with images of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.containers.engine import Engine
from tests.support.compose import COMPOSE
from tests.support.stack import ROOT, free_port, wait_until

TAG = "containers-test"
START_SECONDS = 180
STARVED = "850M"
"""For `WORKER_MEMORY`: one process (720 MB with 32 bits) has room in it for photographs, and not
for the largest pictures that are allowed."""


@dataclass
class Project:
    """`settings`: variables, as a user's .env would set them. `files`: beside docker-compose.yml,
    or in its place if `alone`."""

    engine: Engine
    name: str
    settings: dict[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    alone: bool = False

    def __post_init__(self) -> None:
        self.port, self.flower_port = free_port(), free_port()
        ports = {"PORT": str(self.port), "FLOWER_PORT": str(self.flower_port)}
        self.settings = {"TAG": TAG, **ports, **self.settings}

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5", "--remove-orphans")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        """What Compose prints. Raises `EngineError`."""
        files = [*([] if self.alone else [ROOT / "docker-compose.yml"]), *self.files]
        return self.engine.run(
            *(COMPOSE, "--project-name", self.name, "--env-file", os.devnull),
            *(word for file in files for word in ("--file", file)),
            *arguments,
            **self.settings,
        )

    def up(self, *arguments: str) -> None:
        """Start what is not running, and wait until all of it is healthy."""
        began = time.monotonic()
        self.compose("up", "--detach", "--no-build", *arguments)
        wait_until(self._all_healthy, seconds=START_SECONDS, what=f"{self.name} is healthy")
        print(f"up {' '.join(arguments)}: healthy after {time.monotonic() - began:.0f} s")

    def ids(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, *services: str) -> list[dict[str, Any]]:
        """What the engine knows of their containers, those that have ended included."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        return json.loads(self.engine.docker("inspect", *ids)) if ids else []

    def processes(self, container: str) -> list[dict[str, str]]:
        """`user`, `pid` (outside) and `args` of each process in a container."""
        shown = self.engine.docker("top", container, "-eo", "user:30,pid,args")
        lines = [line.split(None, 2) for line in shown.splitlines()[1:]]
        return [dict(zip(("user", "pid", "args"), line, strict=True)) for line in lines]

    def logs(self, *services: str) -> str:
        return self.compose("logs", "--no-color", *services)

    def _all_healthy(self) -> bool:
        states = [one["State"] for one in self.inspect()]
        return all(
            state["ExitCode"] == 0
            if state["Status"] == "exited"
            else state.get("Health", {}).get("Status") == "healthy"
            for state in states
        )


def configuration(project: Project, *profiles: str) -> dict[str, Any]:
    """The services as Compose reads them."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    services: dict[str, Any] = json.loads(project.compose(*chosen, "config", "--format", "json"))
    return services["services"]
