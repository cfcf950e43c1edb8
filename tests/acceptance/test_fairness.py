"""A client's backlog does not hold up another client's image, measured on real workers."""

from __future__ import annotations

from pathlib import Path

import httpx
import redis

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise
from tests.support.stack import Stack, wait_until

BACKLOG = 300
PROCESSES = 2


def test_a_single_image_passes_a_long_backlog(tmp_path: Path) -> None:
    image = encoded(noise(40, 30), "PNG")
    with Stack(
        tmp_path,
        API_KEYS="heavy,light",
        WORKER_CONCURRENCY=str(PROCESSES),
        SIMULATED_MS="20",
    ) as stack:
        stack.start(workers=0)
        heavy = httpx.Client(base_url=stack.url, headers={"X-API-Key": "heavy"}, timeout=30)
        light = httpx.Client(base_url=stack.url, headers={"X-API-Key": "light"}, timeout=30)
        with heavy, light, redis.Redis(port=stack.redis.port) as store:
            ids = [submit(heavy, image)["task_id"] for _ in range(BACKLOG)]
            stack.start_worker(app="tests.support.simulated_app")
            wait_until(
                lambda: int(store.hget("yolo:stats", "jobs:completed") or 0) > 10,
                seconds=60,
                what="the workers are busy",
            )
            single = submit(light, image)
            assert single["position"] <= PROCESSES + 1
            assert wait_for(light, single["task_id"])["status"] == "completed"

            accepted, started = event_times(store, single["task_id"])
            overtook = sum(accepted < event_times(store, task_id)[1] < started for task_id in ids)
            assert overtook <= PROCESSES + 1, f"{overtook} jobs of the backlog went first"
            assert wait_for(heavy, ids[-1], seconds=60)["status"] == "completed", (
                "nor is it starved"
            )


def event_times(store: redis.Redis, task_id: str) -> tuple[int, int]:
    """(accepted, started) in milliseconds; a job that has not started counts as never."""
    times = {
        fields[b"status"]: int(entry.partition(b"-")[0])
        for entry, fields in store.xrange(f"yolo:events:{task_id}")
    }
    return times[b"queued"], times.get(b"processing", 1 << 62)
