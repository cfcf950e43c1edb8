"""Jobs for tests of the store itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shared.job.gateway_store import GatewayStore
from shared.job.keys import lanes_of
from shared.job.record import Attempt, DetectParameters, JobState, NewJob
from shared.job.worker_store import WorkerStore

MODEL = "demo"
MODELS = (MODEL,)
FIRST_LANE = f"yolo.{MODEL}.0"
"""The list of the first client's messages."""


def job(owner: str = "a", *, image: bytes = b"image", **more: Any) -> NewJob:
    defaults = {"model": MODEL, "content_type": "image/png", "width": 4, "height": 3}
    return NewJob(
        owner=owner, image=image, **{**defaults, "parameters": DetectParameters(), **more}
    )


def report(ready: int = 1, models: Collection[str] = MODELS) -> dict[str, Any]:
    """What a worker says of itself with each heartbeat."""
    return {"ready": ready, "models": dict.fromkeys(models, "9f86")}


def claimed(store: WorkerStore, task_id: str, worker: str = "w1") -> Attempt:
    attempt = store.claim(task_id, worker, MODELS)
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
            ("yolo:marks", [f"at:{lane}" for lane in lanes_of(MODEL)]),
        ):
            for name in names:
                if self._redis.hexists(key, name):
                    self._redis.hincrby(key, name, -ms)
