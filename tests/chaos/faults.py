"""Kills, pauses and disturbs the parts of a running stack, and times how long it recovers."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import redis

from shared.job.message import task_message
from shared.job.record import JobState
from shared.settings import Settings
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until

WORKER_APP = "tests.chaos.app"
MAX_ATTEMPTS = Settings().max_attempts


@dataclass
class Fault:
    name: str
    at: float
    victims: list[str] = field(default_factory=list)
    recovered_seconds: float | None = None
    """For Redis and the gateway: until work flows again."""


class Saboteur:
    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._random = random.Random(seed)
        self._redis = redis.Redis(port=stack.redis.port, socket_timeout=10)
        self.faults: list[Fault] = []
        self._names: dict[int, str] = {}

    def start_worker(self) -> subprocess.Popen[bytes]:
        name = f"w{len(self._stack.processes)}"
        worker = self._stack.start_worker(name, app=WORKER_APP)
        self._names[worker.pid] = f"{name}@test/{worker.pid}"
        return worker

    def kinds(self) -> dict[str, Callable[[], None]]:
        return {
            "pool process SIGKILL": self.kill_pool_process,
            "worker SIGKILL": self.kill_worker,
            "worker paused": self.pause_worker,
            "worker SIGTERM": self.terminate_worker,
            "gateway SIGTERM": lambda: self.restart_gateway(signal.SIGTERM),
            "gateway SIGKILL": lambda: self.restart_gateway(signal.SIGKILL),
            "Redis SIGKILL": self.kill_redis,
            "Redis paused": self.pause_redis,
            "connections cut": self.cut_connections,
            "malformed messages": self.push_malformed_messages,
            "silent clients": self.open_silent_connections,
        }

    def kill_pool_process(self) -> None:
        worker, jobs = self._busy_worker()
        pids = pool_pids(worker)
        self._note("pool process SIGKILL", jobs)
        for pid in pids:  # all of them, so that those in the middle of a job are among them
            os.kill(pid, signal.SIGKILL)

    def kill_worker(self) -> None:
        worker, jobs = self._busy_worker()
        pids = pool_pids(worker)
        self._note("worker SIGKILL", jobs)
        for pid in (worker.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        worker.wait()
        self._replace(worker)

    def terminate_worker(self) -> None:
        worker, jobs = self._busy_worker()
        self._note("worker SIGTERM", jobs)
        worker.terminate()
        worker.wait(timeout=60)
        self._replace(worker)

    def pause_worker(self) -> None:
        """For longer than a lease: others take its jobs, and what it commits later is void."""
        worker, jobs = self._busy_worker()
        pids = [worker.pid, *pool_pids(worker)]
        self._note("worker paused", jobs)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(22)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def restart_gateway(self, how: signal.Signals) -> None:
        fault = self._note(f"gateway {how.name}", [])
        self._stack.gateway.send_signal(how)
        self._stack.gateway.wait(timeout=40)
        back = time.monotonic()
        self._stack.start_gateway()
        fault.recovered_seconds = time.monotonic() - back

    def kill_redis(self) -> None:
        fault = self._note("Redis SIGKILL", [])
        self._stack.redis.kill()
        self._expect_refusal()
        time.sleep(2)
        self._stack.redis.start()
        fault.recovered_seconds = self._until_work_flows()

    def pause_redis(self) -> None:
        fault = self._note("Redis paused", [])
        os.kill(self._stack.redis.pid, signal.SIGSTOP)
        try:
            self._expect_refusal()
            time.sleep(3)
        finally:  # or the end of the run would wait for it in vain
            os.kill(self._stack.redis.pid, signal.SIGCONT)
        fault.recovered_seconds = self._until_work_flows()

    def cut_connections(self) -> None:
        """As a proxy or a network does: Redis stays, and everybody has to connect again."""
        fault = self._note("connections cut", [])
        kinds = ["normal", "pubsub"]
        self._random.shuffle(kinds)
        for kind in kinds:
            self._redis.client_kill_filter(_type=kind, skipme=True)
        fault.recovered_seconds = self._until_work_flows()

    def push_malformed_messages(self) -> None:
        """Put messages that make no job in front of the queue."""
        fault = self._note("malformed messages", [])
        message = json.loads(task_message("malformed", "yolo"))
        for text in (
            "no JSON",
            "[1]",
            json.dumps({**message, "body": "bnVsbA=="}),
            json.dumps({**message, "headers": {"task": "yolo.detect"}}),
            json.dumps({**message, "headers": {**message["headers"], "timelimit": "soon"}}),
        ):
            self._redis.rpush("yolo", text)
        fault.recovered_seconds = self._until_work_flows()

    def open_silent_connections(self) -> None:
        """Clients that announce large bodies, send nothing and then reset their connections."""
        fault = self._note("silent clients", [])
        head = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n"
        with ExitStack() as open_connections:
            for number in range(60):
                connection = socket.create_connection(("127.0.0.1", self._stack.port))
                open_connections.enter_context(connection)
                reset = struct.pack("ii", 1, 0)  # RST at the end, not FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                connection.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n")
                connection.sendall(b"\r\n" if number % 2 else b"")
            fault.recovered_seconds = self._until_work_flows()

    def _expect_refusal(self) -> None:
        """While Redis is away: 503 as problem+json in under 2 s, on every path."""
        # Made before the clock starts: loading certificates takes longer than a request.
        with httpx.Client(base_url=self._stack.url, timeout=10) as client:
            for path in ("/ready", "/queue", "/result/00000000-0000-4000-8000-000000000000"):
                begin = time.monotonic()
                answer = client.get(path)
                took = time.monotonic() - begin
                assert answer.status_code == 503, (path, answer.status_code)
                assert answer.headers["content-type"] == "application/problem+json"
                assert took < 2, (path, took)

    def _until_work_flows(self) -> float:
        """Until a worker has taken a job that was still in the queue, and `/ready` says so."""
        begin = time.monotonic()
        client = redis.Redis(port=self._stack.redis.port, socket_timeout=5)
        started = attempts(client)

        def flows() -> bool:
            try:
                ready = httpx.get(self._stack.url + "/ready", timeout=5).status_code == 200
            except httpx.TransportError:
                return False
            return ready and attempts(client) > started

        wait_until(flows, seconds=60, what="work flows again")
        return time.monotonic() - begin

    def _busy_worker(self) -> tuple[subprocess.Popen[bytes], list[str]]:
        """A worker in the middle of a job, and the jobs it holds.

        None of these is in its last attempt. A healthy job that is killed `MAX_ATTEMPTS` times
        fails, as promised, and would say nothing about lost jobs.
        """

        def find() -> tuple[subprocess.Popen[bytes], list[str]] | None:
            held: dict[str, list[str]] = {}
            spared = set()
            for task_id in self._redis.zrange("yolo:leases", 0, -1):
                job = b"yolo:job:" + task_id
                holder, number = self._redis.hmget(job, "worker", "attempts")
                if holder:
                    held.setdefault(holder.decode(), []).append(task_id.decode())
                    if int(number) >= MAX_ATTEMPTS:
                        spared.add(holder.decode())
            names = {worker: self._names[worker.pid] for worker in self._stack.workers}
            busy = [w for w, name in names.items() if name in held and name not in spared]
            if not busy:
                return None
            worker = self._random.choice(busy)
            return worker, held[names[worker]]

        return wait_until(find, seconds=60, what="a worker is busy")  # type: ignore[no-any-return]

    def _replace(self, worker: subprocess.Popen[bytes]) -> None:
        self._stack.workers.remove(worker)
        self._stack.workers.append(self.start_worker())

    def _note(self, name: str, victims: list[str]) -> Fault:
        # Redis' clock is this machine's, so the streams' times can be compared with ours.
        fault = Fault(name, time.time(), victims)
        self.faults.append(fault)
        return fault


def attempts(client: redis.Redis) -> int:
    return int(client.hget("yolo:stats", "attempts") or 0)


def ended_jobs(client: redis.Redis) -> dict[str, int]:
    """How many jobs have ended in each state, by the service's own count."""
    states = [state for state in JobState if state.terminal]
    counts = client.hmget("yolo:stats", [f"jobs:{state}" for state in states])
    return {state: int(count) for state, count in zip(states, counts, strict=True) if count}
