"""Starts the images: containers on a network of their own that has nothing but loopback, a
picture sent over HTTP, the health checks and stop signals that an engine would use."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.rehearsal.builder import Image
from deploy.rehearsal.containers import Bind, Container
from deploy.rehearsal.inspections import Finding
from yolo_queue.server.embedded_redis import EmbeddedRedis

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
REDIS_PORT = 6379
LISTENING = "0A"


def leave_the_network() -> None:
    """Give this thread, and what it starts, a network with nothing but loopback: every port is
    free, 0.0.0.0 reaches nobody, and what works then needs no download."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket() as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


class Trial:
    """Starts containers of images, each with a log of its own, and ends what is left of them."""

    def __init__(self, folder: Path, samples: Path) -> None:
        self.folder = folder
        self._samples = samples
        self._containers: list[Container] = []
        self._redis = EmbeddedRedis(folder / "redis", REDIS_PORT, max_bytes=1 << 28)

    def start_redis(self) -> str:
        """Returns its URL."""
        self._redis.start()
        return self._redis.url

    def stop_redis(self) -> None:
        self._redis.stop()

    def end(self) -> None:
        """End every container that runs, and Redis."""
        for container in self._containers:
            container.kill()
        self._redis.stop()

    def start(
        self,
        name: str,
        image: Image,
        *,
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (),
        tmpfs: tuple[str, ...] = (),
        volumes: tuple[str, ...] = (),
        read_only: bool = True,
    ) -> Container:
        """What `docker run` does: CMD as USER in WORKDIR with ENV; volumes start with what the
        image has at their place."""
        binds = tuple(
            Bind(self._volume(name, image, target), target)
            for target in (*image.state.volumes, *volumes)
        )
        hosts = self.folder / f"hosts-{name}"  # as an engine writes it
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {name}\n")
        binds += (Bind(hosts, "/etc/hosts", read_only=True),)
        container = Container(
            image.root,
            {**image.state.env, **(env or {})},
            workdir=image.state.workdir,
            user=image.state.user,
            hostname=name,
            binds=binds,
            tmpfs=tmpfs,
            read_only=read_only,
        )
        self._containers.append(container)
        with self.log(name).open("ab") as log:
            container.start(command or image.state.command, log)
        container.wait_started()
        return container

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _volume(self, name: str, image: Image, target: str) -> Path:
        volume = self.folder / f"volume-{name}{target.replace('/', '-')}"
        if not volume.exists():
            source = image.root / target.lstrip("/")
            shutil.copytree(source, volume)
            for path in (source, *source.rglob("*")):
                owner = path.stat()
                os.chown(volume / path.relative_to(source), owner.st_uid, owner.st_gid)
        return volume

    def detect(self, base_url: str, name: str = "mixed.jpg") -> str:
        """Send a sample, wait for its result, compare with what it shows."""
        expected = json.loads((self._samples / "expected.json").read_text())[name]
        job = self.submit(base_url, name)
        job = get(f"{base_url}/result/{job['task_id']}?wait=30")
        if job["status"] != "completed":
            raise Finding(f"{name}: {job['status']}, {job.get('error')}")
        found = sorted(detection["name"] for detection in job["detections"])
        wanted = sorted(detection["name"] for detection in expected)
        if found != wanted:
            raise Finding(f"{name}: found {found}, but it shows {wanted}")
        return f"{name}: {', '.join(found)} in {job['timings_ms']['total']:.0f} ms"

    def submit(self, base_url: str, name: str = "mixed.jpg") -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310
            f"{base_url}/predict/",
            data=(self._samples / name).read_bytes(),
            headers={"Content-Type": "image/jpeg"},
        )
        return read_json(request)


def get(url: str) -> dict[str, Any]:
    return read_json(urllib.request.Request(url))  # noqa: S310


def read_json(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        body: dict[str, Any] = json.load(answer)
        return body


def status_of(url: str) -> int:
    """The status of a GET, 0 if nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> float:
    """Poll; returns how long it took. Raises `Finding` when it takes too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Finding(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began


def healthy(container: Container, check: tuple[str, ...]) -> bool:
    """Whether the health check passes. Raises `Finding` if the container has ended."""
    if container.process is None or container.process.poll() is not None:
        raise Finding("the container ended by itself")
    return container.execute(check, seconds=15)[0] == 0


def confined(container: Container) -> str:
    """What the first process may do, as the kernel has it, and whether it can write to its root."""
    script = "cat /proc/1/status; touch /app/written && echo writable"
    words = container.execute(("sh", "-c", script), seconds=15)[1]
    facts = dict(line.split(":\t", 1) for line in words.splitlines() if ":\t" in line)
    if facts["Uid"].startswith("0") or int(facts["CapBnd"], 16) or facts["NoNewPrivs"] != "1":
        raise Finding(f"user, capabilities or no-new-privileges are not as they should be: {facts}")
    if "writable" in words.splitlines() or "Read-only file system" not in words:
        raise Finding("the root can be written to")
    return f"user {facts['Uid'].split()[0]}, no capabilities, roots cannot be written to"


@contextmanager
def library_lookups(container: Container) -> Iterator[list[str]]:
    """What the dynamic linker was asked for by the container's processes, from their LD_DEBUG files
    in its /tmp; filled when the block ends."""
    asked: list[str] = []
    yield asked
    search = ("sh", "-c", "grep -hs 'find library=' /tmp/ld-debug.*")
    words = container.execute(search, seconds=15)[1]
    asked += re.findall(r"find library=(\S+)", words)


def memory_mib(container: Container) -> float:
    """Memory of all of a container's processes, shared pages counted once among them."""
    namespace = Path(f"/proc/{container.pid}/ns/pid").readlink()
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == namespace:
                rollup = (process / "smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.M)[0])
        except (OSError, IndexError):
            continue  # it has just ended
    return total / 1024


def open_ports() -> set[int]:
    """Ports of this network that listen on more than loopback."""
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            loopback = address == "0100007F" or address.endswith("01000000")
            if line.split()[3] == LISTENING and not loopback:
                ports.add(int(port, 16))
    return ports
