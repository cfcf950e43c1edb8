"""Power cuts: what a restart finds on a disk that has only what was synced.

A short version of `python -m bench.power_cut`, and what the file system under it drops.
docs/decisions/0002-durability.md has the figures.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from tests.support.images import encoded, noise, sample
from tests.support.job_ledger import Ledger, Loss
from tests.support.machine import environment, missing
from tests.support.power_cut import PowerCutDisk, cut_power, lacking, why_not
from tests.support.redis_machine import Durability, RedisMachine
from tests.support.stack import DEMO_MODEL, ROOT, Stack, free_port, wait_until

IMAGE = encoded(noise(40, 30), "PNG")
LOAD_SECONDS = (2.5, 3.5)
"""Longer than what may be lost, so that losing all of it shows."""
WINDOW_MS = 2000
"""A second between two syncs, the time of one sync, and a machine that does other things too."""


@pytest.fixture(autouse=True)
def _possible() -> None:
    if reason := why_not():
        pytest.skip(reason)
    if reason := lacking():
        missing(reason)


# -- the disk itself ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path) as disk:
        yield disk


def after_power_cut(disk: PowerCutDisk) -> dict[str, str]:
    """What is on the disk: path to content."""
    cut_power([disk], [])
    disk.power_on()
    files = (path for path in disk.path.rglob("*") if path.is_file())
    return {str(path.relative_to(disk.path)): path.read_text() for path in files}


def sync(path: Path, how: Callable[[int], None] = os.fsync) -> None:
    """By a descriptor of its own, as `EmbeddedRedis.sync` does it."""
    descriptor = os.open(path, os.O_RDONLY)
    how(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("how", [os.fsync, os.fdatasync])
def test_content_is_kept_up_to_the_last_sync(
    disk: PowerCutDisk, how: Callable[[int], None]
) -> None:
    with (disk.path / "file").open("a") as file:
        file.write("synced ")
        file.flush()
        sync(disk.path / "file", how)
        sync(disk.path)
        file.write("and not")
        file.flush()
        assert (disk.path / "file").read_text() == "synced and not"
    assert after_power_cut(disk) == {"file": "synced "}


def test_a_name_is_kept_if_its_folder_is_synced(disk: PowerCutDisk) -> None:
    for name in ("kept", "dropped"):
        (disk.path / name).write_text(name)
        sync(disk.path / name)
        if name == "kept":
            sync(disk.path)
    (disk.path / "folder").mkdir()
    (disk.path / "folder" / "inside").write_text("")
    sync(disk.path / "folder")  # not its own name
    assert after_power_cut(disk) == {"kept": "kept"}


def test_a_rename_is_kept_if_its_folder_is_synced(disk: PowerCutDisk) -> None:
    old, new = disk.path / "manifest", disk.path / "new"
    old.write_text("old")
    sync(old)
    sync(disk.path)
    for synced, left in ((False, "old"), (True, "new")):
        new.write_text("new")
        sync(new)
        new.rename(old)
        assert old.read_text() == "new"
        if synced:
            sync(disk.path)
        assert after_power_cut(disk) == {"manifest": left}


def test_a_file_made_shorter_is_so_once_it_is_synced(disk: PowerCutDisk) -> None:
    path = disk.path / "file"
    path.write_text("0123456789")
    sync(path)
    sync(disk.path)
    os.truncate(path, 4)
    assert after_power_cut(disk) == {"file": "0123456789"}
    os.truncate(path, 4)
    with path.open("a") as file:
        file.write("ab")
    sync(path)
    assert after_power_cut(disk) == {"file": "0123ab"}


# -- Redis on it --------------------------------------------------------------------------------


@contextmanager
def service(folder: Path, durability: Durability) -> Iterator[tuple[RedisMachine, Ledger]]:
    with (
        RedisMachine(folder / "machine", durability) as machine,
        Stack(folder, REDIS_URL=machine.url, SIMULATED_MS="5") as stack,
    ):
        stack.start_gateway()
        stack.start_worker(app="tests.support.simulated_app")
        stack.wait_ready(processes=2)
        yield machine, Ledger(stack.port, [IMAGE], random.Random(1))


async def lost_by(
    ledger: Ledger, accident: Callable[[], None], recover: Callable[[], None]
) -> Loss:
    """Submit, and have an accident meanwhile. What is left of the jobs must end."""
    await ledger.wait_accepting()
    happened = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ledger.submit(happened))
        await asyncio.sleep(ledger.source.uniform(*LOAD_SECONDS))
        happened.set()
        accident_at = time.monotonic()
        accident()
        await asyncio.to_thread(recover)
    loss = await ledger.losses(accident_at)
    print(loss)
    assert loss.accepted > 10
    assert loss.gaps == 0
    assert await ledger.unfinished() == []
    return loss


def rewrite(machine: RedisMachine) -> None:
    with redis.Redis(port=machine.port) as client:
        client.bgrewriteaof()


def test_make_run_loses_about_the_last_second(tmp_path: Path) -> None:
    with service(tmp_path, Durability("no", watched=True)) as (machine, ledger):
        loss = asyncio.run(lost_by(ledger, machine.cut_power, machine.power_on))
    assert loss.window_ms < WINDOW_MS
    assert loss.backwards_window_ms < WINDOW_MS


def test_always_loses_nothing_even_while_the_file_is_rewritten(tmp_path: Path) -> None:
    def accident() -> None:
        rewrite(machine)
        machine.cut_power()

    with service(tmp_path, Durability("always")) as (machine, ledger):
        loss = asyncio.run(lost_by(ledger, accident, machine.power_on))
    assert (loss.lost, loss.backwards) == (0, 0)


def test_without_a_sync_all_of_it_is_lost(tmp_path: Path) -> None:
    """The disk under these tests drops what it should."""
    with service(tmp_path, Durability("no")) as (machine, ledger):
        loss = asyncio.run(lost_by(ledger, machine.cut_power, machine.power_on))
    assert loss.lost == loss.accepted


def test_a_killed_redis_loses_nothing(tmp_path: Path) -> None:
    with service(tmp_path, Durability("no", watched=True)) as (machine, ledger):
        loss = asyncio.run(lost_by(ledger, machine.kill, machine.start))
    assert (loss.lost, loss.backwards) == (0, 0)


def test_a_redis_that_was_stopped_in_order_loses_nothing(tmp_path: Path) -> None:
    """It syncs its file itself, whatever its setting."""
    with RedisMachine(tmp_path, Durability("no")) as machine:
        with redis.Redis(port=machine.port) as client:
            client.set("written", 1)
        machine.stop()
        machine.cut_power()
        machine.power_on()
        with redis.Redis(port=machine.port) as client:
            assert client.keys() == [b"written"]


def test_a_torn_write_at_the_end_of_the_file_is_dropped(tmp_path: Path) -> None:
    with RedisMachine(tmp_path, Durability("always")) as machine:
        with redis.Redis(port=machine.port) as client:
            client.set("whole", 1)
        machine.cut_power()
        (file,) = tmp_path.glob("live/redis/appendonlydir/*.incr.aof")
        with file.open("ab") as torn:
            torn.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
        machine.power_on()
        with redis.Redis(port=machine.port) as client:
            assert client.keys() == [b"whole"]


# -- the whole of `make run` --------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_make_run_itself(tmp_path: Path) -> None:
    """`yolo-queue up`, everything of it without power at once, and `up` again."""
    data_dir, log = tmp_path / "data", tmp_path / "up.log"
    data_dir.mkdir()
    ports = {name: str(free_port()) for name in ("PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT")}
    settings = {
        **ports,
        "DATA_DIR": str(data_dir),
        "YOLO_MODEL": str(DEMO_MODEL),
        "WORKER_CONCURRENCY": "1",
    }

    def start() -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            up = subprocess.Popen(
                [sys.executable, "-m", "yolo_queue.cli.main", "up"],
                env=environment(**settings),
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: "\nReady after" in log.read_text(), seconds=90, what="`up` is ready")
        return up

    def power_off() -> None:
        processes = [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]
        cut_power([disk], [process.pid for process in processes])
        up.wait()

    def power_on() -> None:
        nonlocal up
        disk.power_on()
        up = start()

    with PowerCutDisk(tmp_path / "machine") as disk:
        (data_dir / "redis").symlink_to(disk.path)
        up = start()
        try:
            ledger = Ledger(int(ports["PORT"]), [sample()], random.Random(1))
            loss = asyncio.run(lost_by(ledger, power_off, power_on))
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(timeout=60)
    assert loss.window_ms < WINDOW_MS
