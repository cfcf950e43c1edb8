"""Makes several hosts on one machine: Linux network namespaces on a bridge. Needs root, iproute2.

Each has an address and a loopback of its own. What runs in one reaches another only through its
link, which can be cut. The addresses are of TEST-NET-2, which no real network uses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.stack import Stack

NETWORK = "198.51.100"
HUB = "hub"


def why_not() -> str:
    """Why hosts cannot be made here; empty if they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` is not installed (package iproute2)"
    name = f"yq{os.getpid()}try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:  # noqa: S607
        return "this machine's root may not make network namespaces (a container without them?)"
    subprocess.run(["ip", "netns", "delete", name], check=True)  # noqa: S607
    return ""


class Hosts:
    """`with Hosts("a", "b") as hosts`: a hub and the named hosts, all reachable from here."""

    def __init__(self, *names: str) -> None:
        self.addresses = {HUB: f"{NETWORK}.1"}
        self.addresses |= {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 11)}
        # Interface names are at most 15 characters; several test runs may share the machine.
        self._id = f"yq{os.getpid() % 100_000}"
        self._made: list[str] = []

    def __enter__(self) -> Hosts:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # A veth pair goes with the namespace of either end, the bridge with its own.
        for host in reversed(self._made):
            subprocess.run(["ip", "netns", "delete", self._space(host)], check=False)  # noqa: S607

    def _make(self) -> None:
        for host in self.addresses:
            _ip("netns", "add", self._space(host))
            self._made.append(host)
            _ip("-n", self._space(host), "link", "set", "lo", "up")
        _ip("-n", self._space(HUB), "link", "add", "bridge", "type", "bridge")
        self._raise(HUB, "bridge", self.addresses[HUB])
        for number, host in enumerate(self.addresses):
            if host != HUB:
                inner = f"{self._id}n{number}"
                self._plug(host, inner)
                _ip("link", "set", inner, "netns", self._space(host))
                self._raise(host, inner, self.addresses[host])
        # This machine itself, which the test's requests come from.
        here = f"{self._id}n0"
        self._plug("here", here)
        _ip("address", "add", f"{NETWORK}.254/24", "dev", here)
        _ip("link", "set", here, "up")

    def _plug(self, host: str, inner: str) -> None:
        """A cable from the bridge to `inner`, which is still here."""
        port = f"to-{host}"
        _ip("link", "add", inner, "type", "veth", "peer", "name", port, "netns", self._space(HUB))
        _ip("-n", self._space(HUB), "link", "set", port, "master", "bridge", "up")

    def _raise(self, host: str, device: str, address: str) -> None:
        _ip("-n", self._space(host), "address", "add", f"{address}/24", "dev", device)
        _ip("-n", self._space(host), "link", "set", device, "up")

    def _space(self, host: str) -> str:
        return f"{self._id}{host}"

    def inside(self, host: str) -> tuple[str, ...]:
        """What to put before a command so that it runs on a host; it keeps its pid."""
        return ("ip", "netns", "exec", self._space(host))

    def cut(self, host: str) -> None:
        _ip("-n", self._space(HUB), "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        _ip("-n", self._space(HUB), "link", "set", f"to-{host}", "up")


class SpreadStack(Stack):
    """A stack whose processes run on hosts: `place` says by name which; the hub is the default."""

    def __init__(self, folder: Path, hosts: Hosts, **environment: str) -> None:
        super().__init__(folder, **environment)
        self.hosts = hosts
        self.place: dict[str, str] = {}
        self.url = f"http://{hosts.addresses[HUB]}:{self.port}"

    def spawn(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        inside = self.hosts.inside(self.place.get(name, HUB))
        return super().spawn(name, *inside, *command, **environment)


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
