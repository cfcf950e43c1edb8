"""Jobs with many tiles on a real service: they share processes, and hold nobody up."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from shared.settings import Settings
from tests.support.client import submit, wait_for
from tests.support.images import encoded, many_codes, sample
from tests.support.metrics import samples, scrape, value
from tests.support.processes import pool_pids
from tests.support.stack import Stack, wait_until
from worker.app import create_app

APP = "tests.support.simulated_app"
TILES = {"tile": 500, "overlap": 0, "annotate": "false"}


@pytest.fixture(scope="module")
def picture() -> bytes:
    """4,000 x 3,000 pixels: 48 tiles, so 49 passes in seven parts."""
    return encoded(many_codes(8, 6)[0], "JPEG", quality=80)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Forward passes end once this file is there."""
    return tmp_path / "run"


@pytest.fixture
def held(tmp_path: Path, run: Path) -> Iterator[Stack]:
    settings = {"SIMULATED_RUN_UNTIL": str(run), "WORKER_CONCURRENCY": "2"}
    with Stack(tmp_path, API_KEYS="heavy,light", **settings) as stack:
        yield stack.start(app=APP)


def as_client(stack: Stack, key: str) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers={"X-API-Key": key}, timeout=30)


def running(store: redis.Redis) -> list[str]:
    return [name.decode() for name in store.zrange("yolo:leases", 0, -1)]


def test_parts_run_on_all_processes_and_survive_one(held: Stack, run: Path, picture: bytes) -> None:
    with as_client(held, "heavy") as client, redis.Redis(port=held.redis.port) as store:
        task_id = submit(client, picture, **TILES)["task_id"]
        wait_until(lambda: len(running(store)) == 2, seconds=20, what="both processes have a part")
        assert running(store) == [f"{task_id}#0", f"{task_id}#1"]
        os.kill(pool_pids(held.workers[0])[0], signal.SIGKILL)
        wait_until(
            lambda: store.hget("yolo:stats", "lost:worker_lost"), seconds=20, what="it is noticed"
        )
        run.touch()
        job = wait_for(client, task_id)
        assert job["status"] == "completed"
        assert (job["attempts"], job["tiles"]["count"]) == (1, 48)
        assert len(job["detections"]) == 1, "all parts, each once"
        stats = store.hgetall("yolo:stats")
        assert (stats[b"attempts"], stats[b"jobs:completed"]) == (b"8", b"1")
        assert not store.keys("yolo:*#*")


def test_a_small_picture_passes_a_job_of_many_tiles(held: Stack, run: Path, picture: bytes) -> None:
    with (
        as_client(held, "heavy") as heavy,
        as_client(held, "light") as light,
        redis.Redis(port=held.redis.port) as store,
    ):
        large = submit(heavy, picture, **TILES)["task_id"]
        behind = submit(heavy, picture, **TILES)
        wait_until(lambda: len(running(store)) == 2, seconds=20, what="both processes have a part")
        small = [submit(light, sample()) for _ in range(4)]
        # One pass of the other client comes first; its own are next to each other.
        assert [job["position"] for job in small] == [2, 4, 6, 8]
        assert behind["position"] > 40
        depth = light.get("/queue").json()["depth"]
        assert depth == 5 + 7 + 4, "parts count"
        run.touch()
        ends = [wait_for(light, job["task_id"])["finished_at"] for job in small]
        large_ends = [wait_for(heavy, job)["finished_at"] for job in (large, behind["task_id"])]
        assert max(ends) < min(large_ends)


def test_a_producers_task_is_done_in_parts(tmp_path: Path) -> None:
    with Stack(tmp_path, WORKER_CONCURRENCY="2") as stack:
        stack.start(app=APP)
        app = create_app(Settings(redis_url=stack.redis.url))
        image = base64.b64encode(encoded(many_codes(8, 6)[0], "JPEG", quality=30)).decode()
        tiles = {"tile": 500, "overlap": 0}
        outcome = app.send_task("yolo.detect", kwargs={"image": image, **tiles})
        assert outcome.get(timeout=30)["tiles"]["count"] == 48
        # Ids that are written otherwise in a message, or are in it anyway, are done in one go.
        for name in ('é-"1', "r%5"):
            outcome = app.send_task("yolo.detect", kwargs={"image": image, **tiles}, task_id=name)
            assert outcome.get(timeout=30)["tiles"]["count"] == 48
        outcome = app.send_task("yolo.detect", kwargs={"image": image, **tiles}, task_id="0")
        assert outcome.get(timeout=30)["tiles"]["count"] == 48
        refused = app.send_task("yolo.detect", kwargs={"image": image}, task_id="part#1")
        wait_until(refused.ready, seconds=20, what="the task ends")
        assert "must not have #" in str(refused.result)
        app.pool.force_close_all()
        app.close()
        accepted = samples(scrape(f"{stack.url}/metrics"))
        assert value(accepted, "yolo_queue_jobs_accepted_total") == 4
