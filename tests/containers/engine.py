# ruff: noqa: S607 - the machine's own tools, by name
"""Finds a container engine, or starts a private one for as long as it is needed.

    python -m tests.containers.engine     # one to work with by hand, until Ctrl-C

The private one (`dockerd`, as root) has its socket, images and containers in a temporary folder. It
shares the network with this machine, so what it changes in the packet filter is taken back.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.machine import environment
from tests.support.stack import wait_until

START_SECONDS = 60
STOP_SECONDS = 60
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class EngineError(Exception):
    """A command failed. Says which, and what it printed."""


@dataclass(frozen=True, slots=True)
class Engine:
    """`host`: where it listens, as in `DOCKER_HOST`; empty: where the client looks by itself."""

    host: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        """For a subprocess that shall reach this engine."""
        return environment(**({"DOCKER_HOST": self.host} if self.host else {}), **more)

    def docker(self, *arguments: str | Path, text: str | None = None) -> str:
        """What the client prints. Raises `EngineError`."""
        return self.run("docker", *arguments, text=text)

    def run(self, *command: str | Path, text: str | None = None, **more: str) -> str:
        """What a command prints that reaches this engine. `text`: its input, `more`: variables."""
        ended = subprocess.run(
            command,
            env=self.environment(**more),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise EngineError(f"{' '.join(map(str, command))}: {ended.stdout} {ended.stderr}")
        return ended.stdout

    def answers(self) -> bool:
        with suppress(EngineError, FileNotFoundError):
            self.docker("info")
            return True
        return False


def why_not() -> str:
    """Why there can be no engine; empty if there can."""
    if Engine().answers():
        return ""
    if os.geteuid() != 0:
        return "no container engine answers, and only root can start one"
    lacking = [tool for tool in ("docker", "dockerd", "iptables-save") if not shutil.which(tool)]
    return f"no container engine answers, and {', '.join(lacking)} is missing" if lacking else ""


@contextmanager
def running_engine() -> Iterator[Engine]:
    """The engine that is there, or a private one until the end."""
    if Engine().answers():
        yield Engine()
        return
    with (
        tempfile.TemporaryDirectory(
            prefix="yolo-queue-engine-", ignore_cleanup_errors=True
        ) as name,
        _same_network_afterwards(),
        _daemon(Path(name)) as engine,
    ):
        yield engine


@contextmanager
def _daemon(folder: Path) -> Iterator[Engine]:
    engine, log = Engine(f"unix://{folder}/docker.sock"), folder / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [
                # It ends with this process, whatever ends it; Ctrl-C alone goes to this one first.
                *("setpriv", "--pdeathsig", "TERM", "dockerd", "--host", engine.host),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                *("--pidfile", folder / "pid", "--log-level", "warn"),
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: engine.answers() or daemon.poll() is not None,
                seconds=START_SECONDS,
                what="dockerd answers",
            )
            if daemon.poll() is not None:
                raise EngineError(f"dockerd ended: {log.read_text()}")
            yield engine
        finally:
            daemon.terminate()
            daemon.wait(STOP_SECONDS)


@contextmanager
def _same_network_afterwards() -> Iterator[None]:
    rules = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    forwarding = _FORWARDING.read_text()
    try:
        yield
    finally:
        subprocess.run(["iptables-restore"], input=rules, check=True)
        _FORWARDING.write_text(forwarding)
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)


def main() -> None:
    # Also when it runs in the background, where a shell has it ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with running_engine() as engine:
        print(f"export DOCKER_HOST={engine.host}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
