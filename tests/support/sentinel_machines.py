"""A primary and a replica behind Sentinel, each on a machine whose power can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import redis

from tests.support.power_cut import PowerCutDisk, cut_power, sync_folders
from tests.support.sentinels import SentinelGroup
from tests.support.stack import wait_until


class SentinelMachines:
    """`with SentinelMachines(...) as machines`: replicating. Sentinels are on other machines."""

    def __init__(self, folder: Path, appendfsync: str) -> None:
        self._disks = [PowerCutDisk(folder / name) for name in ("first", "second")]
        data = [disk.path / "redis" for disk in self._disks]
        self.group = SentinelGroup(folder, appendfsync=appendfsync, data=data)
        self.url = self.group.url
        self._disk_of = dict(zip(self.group.servers, self._disks, strict=True))
        self._dark: list[int] = []
        """Servers without power, the last primary first."""
        self._resources = ExitStack()

    def __enter__(self) -> SentinelMachines:
        for disk in self._disks:
            self._resources.enter_context(disk)
        self._resources.enter_context(self.group)
        self._servers_are_old()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def prepare(self) -> None:
        """Until both servers run and replicate."""
        primary = self.group.primary()
        for port in self._dark:
            self._disk_of[port].power_on()
            self.group.start_server(port, primary=primary)
        self._dark = []
        wait_until(self._replicating, seconds=60, what="a replica follows")
        self._servers_are_old()

    def cut_primary(self) -> None:
        self._cut([self.group.primary()])

    def cut_both(self) -> None:
        self._cut(sorted(self.group.servers, key=lambda port: port != self.group.primary()))

    def _cut(self, ports: Sequence[int]) -> None:
        cut_power([self._disk_of[port] for port in ports], [self.group.pid(p) for p in ports])
        for port in ports:
            self.group.reap(port)
        self._dark = list(ports)

    def fail_over(self) -> None:
        """Until the other server is primary."""
        self.group.wait_for_another(self._dark[0])

    def power_on(self) -> None:
        """Start both again. Either may become primary."""
        primary = self._dark[0]
        for port in self._dark:
            self._disk_of[port].power_on()
            self.group.start_server(port, primary=primary)
        self._dark = []
        wait_until(self._replicating, seconds=60, what="a replica follows")

    def _replicating(self) -> bool:
        try:
            with self.group.client(self.group.primary()) as primary:
                replica = primary.info("replication").get("slave0", {})
        except redis.ConnectionError:
            return False
        return bool(replica.get("state") == "online")

    def _servers_are_old(self) -> None:
        for port, folder in self.group.data.items():
            sync_folders(folder, self._disk_of[port].path)
