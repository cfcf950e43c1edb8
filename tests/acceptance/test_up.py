"""`yolo-queue up` as a user runs it: a second one, killed parts, and what the next one does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.stack import DEMO_MODEL, ROOT, free_port, wait_until

START_SECONDS = 90
PORTS = ("PORT", "FLOWER_PORT", "EMBEDDED_REDIS_PORT")


class Service:
    """`yolo-queue up` on one DATA_DIR, started again after a test has ended it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.ports = {name: str(free_port()) for name in PORTS}
        self.url = f"http://127.0.0.1:{self.ports['PORT']}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "REDIS_"))},
            **self.ports,
            "DATA_DIR": str(data_dir),
            "YOLO_MODEL": str(DEMO_MODEL),
            "WORKER_CONCURRENCY": "1",
        }
        self.log = data_dir.with_suffix(".log")
        self.up: subprocess.Popen[bytes] | None = None

    def running(self) -> subprocess.Popen[bytes]:
        """`up` when it is ready; started if it does not run."""
        if self.up is None or self.up.poll() is not None:
            self.stop()  # what a failed test left
            with self.log.open("wb") as out:
                self.up = subprocess.Popen(
                    [sys.executable, "-m", "yolo_queue.cli.main", "up"],
                    env=self.environment,
                    cwd=ROOT,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            up = self.up

            def ready() -> bool:
                assert up.poll() is None, self.said()
                return "\nReady after" in self.said()

            wait_until(ready, seconds=START_SECONDS, what="`up` is ready")
        return self.up

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def another(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """A second `up` that is expected to refuse."""
        return subprocess.run(
            [sys.executable, "-m", "yolo_queue.cli.main", "up"],
            env={**self.environment, **{name: str(free_port()) for name in PORTS}, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def processes(self) -> dict[int, str]:
        """Command lines, by pid, of all processes that run for this folder."""
        found = {}
        for process in psutil.process_iter():
            try:
                # Valkey overwrites its environment with its title, but stays in its folder.
                ours = process.environ().get("DATA_DIR") == str(self.data_dir) or Path(
                    process.cwd()
                ).is_relative_to(self.data_dir)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
            except (psutil.Error, FileNotFoundError):
                continue
        return found

    def pid(self, text: str) -> int:
        """The oldest process with this text in its command line."""
        return min(pid for pid, command in self.processes().items() if text in command)

    def wait_for_nobody(self, seconds: float) -> None:
        try:
            wait_until(lambda: not self.processes(), seconds=seconds, what="nothing is left")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.processes()}\n{self.said()[-4000:]}") from None

    def stop(self) -> None:
        if self.up and self.up.poll() is None:
            self.up.terminate()
            try:
                self.up.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.up.kill()
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.up:
            self.up.wait()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("up") / "data")
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def accepted(client: httpx.Client) -> list[str]:
    """Submit jobs; the first takes a while, and is running when this returns."""
    slow = encoded(noise(5000, 4000), "JPEG", quality=60)
    ids = [submit(client, slow)["task_id"]]
    ids += [submit(client, sample())["task_id"] for _ in range(20)]
    wait_until(
        lambda: client.get(f"/result/{ids[0]}").json()["status"] == "processing",
        seconds=20,
        what="the worker has the first job",
    )
    return ids


def all_done(client: httpx.Client, ids: list[str]) -> list[int]:
    """How many attempts each took."""
    jobs = [wait_for(client, task_id, seconds=60) for task_id in ids]
    assert Counter(job["status"] for job in jobs) == {"completed": len(ids)}
    return [job["attempts"] for job in jobs]


def test_a_second_up_in_the_same_folder_says_who_has_it(
    service: Service, client: httpx.Client
) -> None:
    up = service.running()
    second = service.another()
    assert second.returncode == 1
    message = (
        f"in use by another `yolo-queue up`: process {up.pid}, on port {service.ports['PORT']}"
    )
    assert message in second.stdout
    assert "since 20" in second.stdout
    assert f"kill {up.pid}" in second.stdout
    # Flower's history is in the folder too.
    with_own_redis = service.another(
        REDIS_URL=f"redis://127.0.0.1:{service.ports['EMBEDDED_REDIS_PORT']}/1"
    )
    assert with_own_redis.returncode == 1
    assert message in with_own_redis.stdout
    # The first one is not affected.
    assert wait_for(client, submit(client, sample())["task_id"])["status"] == "completed"
    servers = [c for c in service.processes().values() if "valkey-server" in c]
    assert len(servers) == 1


def test_up_says_what_is_wrong_and_leaves_nothing_behind(service: Service, tmp_path: Path) -> None:
    service.running()
    elsewhere = str(tmp_path)
    port = service.ports["PORT"]
    taken = service.another(DATA_DIR=elsewhere, PORT=port)
    assert taken.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in taken.stdout
    assert "set PORT" in taken.stdout
    no_redis = service.another(DATA_DIR=elsewhere, REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert no_redis.returncode == 1
    assert "does not answer" in no_redis.stdout
    assert "secret" not in no_redis.stdout
    no_model = service.another(DATA_DIR=elsewhere, YOLO_MODEL="/nowhere.pt")
    assert no_model.returncode == 1
    assert "/nowhere.pt is not there" in no_model.stdout
    nonsense = service.another(DATA_DIR=elsewhere, MAX_ATTEMPTS="none")
    assert nonsense.returncode == 2
    assert "MAX_ATTEMPTS" in nonsense.stdout
    no_folder = service.another(DATA_DIR="/dev/null/data")
    assert no_folder.returncode == 1
    assert "DATA_DIR=/dev/null/data cannot be used" in no_folder.stdout


def test_a_killed_up_takes_everything_with_it_in_order(
    service: Service, client: httpx.Client
) -> None:
    up = service.running()
    ids = accepted(client)
    worker = service.pid("worker.app worker")
    os.killpg(worker, signal.SIGSTOP)  # a job that takes its time
    try:
        up.kill()
        up.wait()
        wait_until(lambda: "is gone; stopping" in service.said(), seconds=10, what="it is noticed")
        meanwhile = service.another()
        assert meanwhile.returncode == 1
        assert f"worker (process {worker})" in meanwhile.stdout
        assert "is being stopped" in meanwhile.stdout
        assert "valkey-server" in str(service.processes()), "Redis waits for the worker"
    finally:
        os.killpg(worker, signal.SIGCONT)
    service.wait_for_nobody(seconds=40)
    assert "ready to exit, bye bye" in (service.data_dir / "redis" / "redis.log").read_text()
    service.running()
    assert set(all_done(client, ids)) == {1}, "what the worker had, it finished"


def test_a_dead_redis_ends_the_service_and_the_next_one_continues(
    service: Service, client: httpx.Client
) -> None:
    up = service.running()
    ids = accepted(client)
    redis_pid = service.pid("valkey-server")
    os.kill(redis_pid, signal.SIGKILL)
    began = time.monotonic()
    assert up.wait(timeout=20) == 1
    assert time.monotonic() - began < 10
    last_words = service.said()[-1000:]
    assert f"The embedded Redis (process {redis_pid}) was killed by SIGKILL" in last_words
    assert str(service.data_dir / "redis" / "redis.log") in last_words
    assert "Accepted jobs are kept" in last_words
    assert "`make run` continues them" in last_words
    assert "Traceback" not in service.said()
    service.wait_for_nobody(seconds=5)
    service.running()
    all_done(client, ids)


def test_what_is_left_when_the_reaper_is_killed_as_well_is_named(service: Service) -> None:
    up = service.running()
    redis_pid, worker = service.pid("valkey-server"), service.pid("worker.app worker")
    os.kill(service.pid("yolo_queue.server.reaper"), signal.SIGKILL)
    up.kill()
    up.wait()
    with_redis = service.another()
    assert with_redis.returncode == 1
    assert f"redis (process {redis_pid})" in with_redis.stdout
    assert f"worker (process {worker})" in with_redis.stdout
    # Nobody holds the lock without Redis; the worker would take jobs of the next service.
    os.kill(redis_pid, signal.SIGKILL)
    wait_until(
        lambda: redis_pid not in service.processes(), seconds=10, what="Redis has been killed"
    )
    without = service.another()
    assert without.returncode == 1
    assert f"worker (process {worker})" in without.stdout
    assert f"process {redis_pid}" not in without.stdout
    advice = re.search(r"`kill ([\d ]+)`", without.stdout)
    assert advice
    named = {int(pid) for pid in advice[1].split()}
    for pid in named:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: worker not in service.processes(), seconds=40, what="the worker ends")
    for pid in named & service.processes().keys():  # Flower may not end without Redis
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    service.wait_for_nobody(seconds=10)
    service.running()
