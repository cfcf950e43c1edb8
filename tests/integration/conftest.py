"""Both sides of the job store, on one real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.job.gateway_store import GatewayStore
from shared.job.worker_store import WorkerStore
from shared.settings import Settings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(settings: Settings) -> WorkerStore:
    return WorkerStore(settings)


@pytest.fixture
async def gateway(settings: Settings) -> AsyncIterator[GatewayStore]:
    gateway = GatewayStore(settings)
    yield gateway
    await gateway.close()
