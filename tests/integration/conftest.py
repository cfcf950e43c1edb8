"""Both sides of the job store, on one real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.job_intake import JobIntake
from shared.job_store import JobStore
from shared.settings import Settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(settings: Settings) -> JobStore:
    return JobStore(settings)


@pytest.fixture
async def intake(settings: Settings) -> AsyncIterator[JobIntake]:
    intake = JobIntake(settings)
    yield intake
    await intake.close()
