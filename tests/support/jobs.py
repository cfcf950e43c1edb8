"""Jobs for tests of the store itself."""

from __future__ import annotations

from typing import Any

from shared.job.gateway_store import GatewayStore
from shared.job.keys import LANES
from shared.job.record import Attempt, DetectParameters, JobState, NewJob
from shared.job.worker_store import WorkerStore


def job(owner: str = "a", *, image: bytes = b"image", **more: Any) -> NewJob:
    return NewJob(owner, image, "image/png", 4, 3, DetectParameters(), **more)


def claimed(store: WorkerStore, task_id: str, worker: str = "w1") -> Attempt:
    attempt = store.claim(task_id, worker)
    assert isinstance(attempt, Attempt), attempt
    return attempt


async def state_of(gateway: GatewayStore, task_id: str) -> JobState:
    found = await gateway.read(task_id)
    assert found is not None
    return found[0].state


async def events_of(store: WorkerStore, task_id: str) -> list[str]:
    return [
        fields[b"status"].decode() for _, fields in store.redis.xrange(f"yolo:events:{task_id}")
    ]


class Clock:
    """Moves the recorded times of Redis' side back, instead of waiting."""

    def __init__(self, store: WorkerStore) -> None:
        self._redis = store.redis

    def pass_(self, seconds: float) -> None:
        ms = int(seconds * 1000)
        for member, score in self._redis.zrange("yolo:leases", 0, -1, withscores=True):
            self._redis.zadd("yolo:leases", {member: score - ms})
        for key, names in (
            ("yolo:stats", ("grace_until_ms",)),
            ("yolo:marks", [f"at:{lane}" for lane in range(LANES)]),
        ):
            for name in names:
                if self._redis.hexists(key, name):
                    self._redis.hincrby(key, name, -ms)
