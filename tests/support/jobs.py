"""Jobs for tests of the store itself."""

from __future__ import annotations

from typing import Any

from shared.job.gateway_store import GatewayStore
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
