"""Worker, gateway and Flower under honcho: when one of them ends, all end, so that the service
never half runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import honcho.manager

from shared.settings import Settings
from yolo_queue.server.roster import Roster

SPARE_SECONDS = 15
"""For a worker to stop, on top of the job it has."""

WITHOUT_REDIS_SECONDS = 3
"""For all to stop when Redis is gone: without it no job can be finished."""


def patience_seconds(settings: Settings) -> float:
    """How long services may take to stop before they are killed."""
    return settings.task_hard_limit_seconds + SPARE_SECONDS


def run_services(
    settings: Settings, environment: Mapping[str, str], data_dir: Path, roster: Roster
) -> int:
    """Run them until one ends or a signal comes; the exit status of the first that ended, or 128
    and the signal's number."""
    honcho.manager.KILL_WAIT = patience_seconds(settings)
    manager = honcho.manager.Manager()
    for name, command in _commands(settings, data_dir).items():
        # exec: signals go to the program, not to a shell around it.
        line = roster.add_itself(name) + "exec " + shlex.join(command)
        manager.add_process(name, line, env=dict(environment))
    manager.loop()
    return int(manager.returncode or 0)


def hurry() -> None:
    """Do not wait for running jobs any more."""
    honcho.manager.KILL_WAIT = WITHOUT_REDIS_SECONDS


def _commands(settings: Settings, data_dir: Path) -> dict[str, list[str]]:
    python = sys.executable
    celery = [python, "-m", "celery", "--quiet", "-A", "worker.app"]
    return {
        "worker": [*celery, "worker", "--without-mingle", "--without-gossip"],
        "api": [python, "-m", "api"],
        "flower": [
            *(*celery, "flower", f"--address={settings.host}", f"--port={settings.flower_port}"),
            *("--persistent=True", f"--db={data_dir / 'flower.db'}"),
            *("--state_save_interval=10000", "--logging=error"),
        ],
    }
