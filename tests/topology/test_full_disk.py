"""A disk that becomes full under the embedded Redis: what is refused, what is kept, what is lost.

Redis carries out a write, cannot put it into its file, and answers "done" all the same; from the
next write on it refuses. What it could not write stays in its memory, and goes to the file as soon
as there is room. docs/decisions/0002-durability.md says what that means for an accepted job.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore
from shared.job.keys import Keys
from shared.settings import Settings
from tests.support.jobs import job
from tests.support.machine import environment
from tests.support.stack import DEMO_MODEL, ROOT, free_port, wait_until
from yolo_queue.server.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.anyio

SMALL, LARGE = "16m", "64m"
IMAGE_BYTES = 4_000
"""Small enough that several jobs arrive in one pass of Redis' event loop."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def why_not() -> str:
    """Why a small disk cannot be made here; empty if it can."""
    if sys.platform != "linux":
        return "tmpfs is Linux's"
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    return ""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    if reason := why_not():
        pytest.skip(reason)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine's root may not mount (a container without the right?)")
    yield tmp_path
    # Lazy: also if a failed test has left something there.
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # noqa: S607


def make_room(disk: Path) -> None:
    command = ["mount", "-o", f"remount,size={LARGE}", str(disk)]
    subprocess.run(command, check=True)


@pytest.fixture
def server(disk: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(disk / "redis", free_port(), max_bytes=1 << 28)
    server.start()
    yield server
    server.stop()


async def fill(server: EmbeddedRedis, submitters: int) -> list[str]:
    """Submit until Redis has refused each of so many submitters: what was accepted."""
    gateway = GatewayStore(Settings(redis_url=server.url))
    accepted: list[str] = []

    async def submit() -> None:
        with suppress(StoreUnavailable):
            while True:
                record, _ = await gateway.accept(job(image=os.urandom(IMAGE_BYTES)))
                accepted.append(record.task_id)

    try:
        await asyncio.gather(*(submit() for _ in range(submitters)))
        # Not only once: it goes on to refuse.
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await gateway.accept(job())
    finally:
        await gateway.close()
    assert len(accepted) > 1000
    return accepted


def lost(server: EmbeddedRedis, accepted: list[str]) -> list[str]:
    """What is missing after SIGKILL and a restart, record or image."""
    if server.running():
        server.kill()
    server.start()
    with redis.Redis(port=server.port) as store:
        return [
            task_id
            for task_id in accepted
            if store.exists(Keys("yolo").job(task_id), Keys("yolo").image(task_id)) != 2
        ]


async def test_nothing_is_lost_if_room_is_made(server: EmbeddedRedis, disk: Path) -> None:
    accepted = await fill(server, submitters=32)
    make_room(disk)
    gateway = GatewayStore(Settings(redis_url=server.url))
    try:
        with redis.Redis(port=server.port) as store:
            wait_until(lambda: written(store), seconds=5, what="Redis writes again")
        record, _ = await gateway.accept(job())
    finally:
        await gateway.close()
    assert lost(server, [*accepted, record.task_id]) == []


def written(store: redis.Redis) -> bool:
    return bool(store.info("persistence")["aof_last_write_status"] == "ok")


@pytest.mark.parametrize("submitters", [1, 32])
@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_nothing_is_lost_if_it_ends_before(
    server: EmbeddedRedis, disk: Path, submitters: int, end: str
) -> None:
    accepted = await fill(server, submitters)
    if end == "stopped":  # in order, which cannot write either
        server.stop()
    missing = lost(server, accepted)
    print(f"{end}, {submitters} at once: {len(missing)} of {len(accepted)} accepted jobs are lost")
    # Each submitter has one job on the way at a time.
    assert missing == []


@pytest.mark.parametrize("submitters", [1, 32])
async def test_appendfsync_always_loses_nothing(server: EmbeddedRedis, submitters: int) -> None:
    """It ends itself rather than answer."""
    with redis.Redis(port=server.port) as store:
        store.config_set("appendfsync", "always")
    accepted = await fill(server, submitters)
    wait_until(lambda: not server.running(), seconds=5, what="it ends itself")
    assert lost(server, accepted) == []


def test_up_says_that_there_is_little_room(disk: Path) -> None:
    log = disk / "up.log"
    settings = {
        **{name: str(free_port()) for name in ("PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT")},
        "DATA_DIR": str(disk / "data"),
        "YOLO_MODEL": str(DEMO_MODEL),
        "WORKER_CONCURRENCY": "1",
    }
    with running_up(environment(**settings), log) as up:
        wait_until(lambda: "Low disk space: " in log.read_text(), seconds=60, what="it is said")
        assert up.poll() is None
    assert log.read_text().count("Low disk space: ") == 1
    assert "MiB are left" in log.read_text()


@contextmanager
def running_up(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        up = subprocess.Popen(
            [sys.executable, "-m", "yolo_queue.cli.main", "up"],
            env=environment,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield up
    finally:
        up.terminate()
        try:
            up.wait(timeout=60)
        finally:
            up.kill()  # what is left ends with it
