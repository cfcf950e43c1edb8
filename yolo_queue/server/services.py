"""Runs worker, gateway and Flower under honcho: when one of them ends, all are stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import honcho.manager

from shared.settings import Settings
from yolo_queue.server.process_list import ProcessList

CELERY = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app"]

SPARE_SECONDS = 15
"""How long a worker may take to stop once its job has ended."""

WITHOUT_REDIS_SECONDS = 3
"""How long all may take to stop without Redis, when no job can be finished."""


def stop_timeout_seconds(settings: Settings) -> float:
    """How long services may take to stop before they are killed."""
    return settings.task_hard_limit_seconds + SPARE_SECONDS


def run_services(
    settings: Settings, environment: Mapping[str, str], data_dir: Path, processes: ProcessList
) -> int:
    """Run them until one ends or a signal arrives. Returns the exit status of the first that ended,
    or 128 plus the number of the signal."""
    honcho.manager.KILL_WAIT = stop_timeout_seconds(settings)
    manager = honcho.manager.Manager()
    for name, command in _commands(settings, data_dir).items():
        # exec: the program gets the signals, instead of a shell around it.
        line = processes.shell_entry(name) + "exec " + shlex.join(command)
        manager.add_process(name, line, env=dict(environment))
    manager.loop()
    return int(manager.returncode or 0)


def stop_quickly() -> None:
    """Let `run_services` kill what has not stopped after a few seconds."""
    honcho.manager.KILL_WAIT = WITHOUT_REDIS_SECONDS


def _commands(settings: Settings, data_dir: Path) -> dict[str, list[str]]:
    return {
        "worker": [*CELERY, "worker", "--without-mingle", "--without-gossip"],
        "api": [sys.executable, "-m", "api"],
        "flower": flower_command(settings, data_dir),
    }


def flower_command(settings: Settings, data_dir: Path) -> list[str]:
    """Also in docker-compose.yml and deploy/kubernetes/components/flower; tests compare them."""
    return [
        *(*CELERY, "flower", f"--address={settings.host}", f"--port={settings.flower_port}"),
        *("--persistent=True", f"--db={data_dir / 'flower.db'}", "--state_save_interval=10000"),
        # Flower keeps tasks in memory, 100,000 by default.
        *("--max_tasks=10000", "--logging=error"),
    ]
