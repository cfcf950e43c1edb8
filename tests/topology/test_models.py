"""Workers that serve different models, under load: one is killed, and one model is exchanged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.client import submit, wait_for
from tests.support.images import sample
from tests.support.models import renamed_model
from tests.support.stack import DEMO_MODEL, Stack, wait_until
from worker.model.weights import version_of

NAMES = {
    "codes": {0: "qr_code", 1: "barcode", 2: "aruco_marker"},
    "shapes": {0: "square", 1: "stripes", 2: "grid"},
}
NEW_NAMES = {0: "QR", 1: "bars", 2: "tag"}
JOBS = 60
LOAD = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model under the names of two models, and a new version of the first."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "codes": DEMO_MODEL,
        "shapes": renamed_model(DEMO_MODEL, folder / "shapes.pt", NAMES["shapes"]),
        "new codes": renamed_model(DEMO_MODEL, folder / "new.pt", NEW_NAMES),
    }


@pytest.fixture(scope="module")
def service(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Workers called `codes`, `shapes` and `both`, by what they serve."""
    with Stack(
        tmp_path_factory.mktemp("models"),
        YOLO_MODELS=",".join(f"{name}={weights[name]}" for name in NAMES),
        WORKER_CONCURRENCY="1",
    ) as stack:
        stack.start(workers=0)
        stack.workers = [
            stack.start_worker("codes", YOLO_MODELS=f"codes={weights['codes']}"),
            stack.start_worker("shapes", YOLO_MODELS=f"shapes={weights['shapes']}"),
            stack.start_worker("both"),
        ]
        stack.wait_ready(processes=3)
        yield stack


@pytest.fixture
def client(service: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def found(job: dict[str, Any]) -> set[str]:
    return {detection["name"] for detection in job["detections"]}


@contextmanager
def stopped(*workers: Any) -> Iterator[None]:
    """Parents and children: they hold no job, and take none."""
    with ExitStack() as going_on:
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
            going_on.callback(os.kill, worker.pid, signal.SIGCONT)
        yield


def test_a_backlog_of_one_model_is_not_in_the_way_of_another(
    service: Stack, client: httpx.Client
) -> None:
    codes, _, both = service.workers
    with stopped(codes, both):
        waiting = [submit(client, sample(), model="codes")["task_id"] for _ in range(20)]
        other = submit(client, sample(), model="shapes")
        assert other["position"] == 1
        assert wait_for(client, other["task_id"])["status"] == "completed"
        assert client.get("/models/codes").json()["depth"] >= 18, "but for what the stopped had"
    for task_id in waiting:
        assert found(wait_for(client, task_id, seconds=60)) == set(NAMES["codes"].values())


def test_a_worker_of_both_takes_from_both_in_turn(service: Stack, client: httpx.Client) -> None:
    codes, shapes, both = service.workers
    with stopped(codes, shapes):
        with stopped(both):
            ids = [
                submit(client, sample(), model=model)["task_id"]
                for model in ["codes"] * 20 + ["shapes"] * 5
            ]

        def ends() -> list[str]:
            """Of the second model's jobs. One of them is with the stopped worker, which had asked
            for it already."""
            jobs = [client.get(f"/result/{task_id}").json() for task_id in ids[20:]]
            return sorted(job["finished_at"] for job in jobs if job["status"] == "completed")

        wait_until(lambda: len(ends()) >= 4, seconds=30, what="the second model's jobs end")
        jobs = [client.get(f"/result/{task_id}").json() for task_id in ids[:20]]
        before = sum(job.get("finished_at", "9") < ends()[3] for job in jobs)
        assert 3 <= before <= 6, f"{before} of the first model before 4 of the second"
    for task_id in ids:
        assert wait_for(client, task_id, seconds=60)["status"] == "completed"


def test_a_killed_worker_costs_no_job_and_none_runs_on_the_wrong_model(
    service: Stack, client: httpx.Client, weights: dict[str, Path]
) -> None:
    ids: dict[str, str] = {}
    for number in range(JOBS):
        model = ("codes", "shapes")[number % 2]
        ids[submit(client, sample(), model=model)["task_id"]] = model
        if number == JOBS // 2:
            both = service.workers[2]
            wait_until(
                lambda: client.get("/queue").json()["in_flight"] == 3, seconds=20, what="all work"
            )
            os.killpg(both.pid, signal.SIGKILL)
    for task_id, model in ids.items():
        job = wait_for(client, task_id, seconds=120)
        assert job["status"] == "completed", job
        assert job["model"] == model
        assert job["model_version"] == version_of(weights[model])
        assert found(job) == set(NAMES[model].values())
    service.workers[2] = service.start_worker("both")
    service.wait_ready(processes=3)


def test_a_model_is_exchanged_under_load(
    service: Stack, client: httpx.Client, weights: dict[str, Path]
) -> None:
    """Start the new version beside the old, wait until it is ready, stop the old: every request is
    answered, and every result says which version made it."""
    jobs: list[dict[str, Any]] = []
    ended = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as own:
            while not ended.is_set():
                job = submit(own, sample(), model="codes")
                jobs.append(wait_for(own, job["task_id"], seconds=60))

    clients = [threading.Thread(target=send) for _ in range(LOAD)]
    for thread in clients:
        thread.start()
    old, new = version_of(weights["codes"]), version_of(weights["new codes"])

    def ready(version: str) -> int:
        versions = client.get("/models/codes").json()["versions"]
        return sum(v["ready_processes"] for v in versions if v["version"] == version)

    try:
        fresh = service.start_worker("new", YOLO_MODELS=f"codes={weights['new codes']}")
        wait_until(lambda: ready(new) == 1, seconds=90, what="the new version is ready")
        wait_until(lambda: versions_of(jobs) == {old, new}, seconds=30, what="both are used")
        replaced = service.workers[0], service.workers[2]
        for worker in replaced:
            worker.terminate()
        for worker in replaced:
            assert worker.wait(timeout=30) == 0
        wait_until(lambda: ready(old) == 0, seconds=30, what="the old version is gone")
        sent = len(jobs)
        wait_until(lambda: len(jobs) > sent + 3 * LOAD, seconds=30, what="the new one goes on")
    finally:
        ended.set()
        for thread in clients:
            thread.join()
    service.workers += [fresh]
    words = {old: set(NAMES["codes"].values()), new: set(NEW_NAMES.values())}
    for job in jobs:
        assert job["status"] == "completed", job
        assert found(job) == words[job["model_version"]]
    assert versions_of(list(islice(reversed(jobs), LOAD))) == {new}
    assert client.get("/models/codes").json()["names"] == {
        str(number): name for number, name in NEW_NAMES.items()
    }


def versions_of(jobs: list[dict[str, Any]]) -> set[str]:
    return {job["model_version"] for job in jobs}
