"""Jobs for tests of the store itself."""

from __future__ import annotations

from typing import Any

from shared.job_intake import JobIntake
from shared.job_store import JobStore
from shared.jobs import Attempt, DetectParameters, JobState, NewJob


def job(owner: str = "a", *, image: bytes = b"image", **more: Any) -> NewJob:
    return NewJob(owner, image, "image/png", 4, 3, DetectParameters(), **more)


def claimed(store: JobStore, task_id: str, worker: str = "w1") -> Attempt:
    attempt = store.claim(task_id, worker)
    assert isinstance(attempt, Attempt), attempt
    return attempt


async def state_of(intake: JobIntake, task_id: str) -> JobState:
    found = await intake.read(task_id)
    assert found is not None
    return found[0].state
