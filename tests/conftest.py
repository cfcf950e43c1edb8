"""Fixtures of several layers: one embedded Redis, one running service."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import hypothesis
import pytest
import redis

from shared.settings import Settings
from tests.support.stack import DEMO_MODEL, Stack, free_port
from yolo_queue.server.embedded_redis import EmbeddedRedis

# How long an example takes says something about the machine, and nothing about the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """If a process of the test run dies, say how: xdist itself only says that it is gone."""
    if error is None:
        return
    process: subprocess.Popen[bytes] = node.gateway._io.popen
    status: int | str = "none: it still runs"
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(timeout=5)  # negative: the signal that killed it
    print(f"\n{node.gateway.id} (pid {process.pid}) is gone; its exit status: {status}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), free_port(), max_bytes=1 << 30)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(redis_server: EmbeddedRedis) -> Settings:
    """Settings for an empty embedded Redis."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return Settings(redis_url=redis_server.url, yolo_model=str(DEMO_MODEL))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service with the demo model. Tests leave it as they found it."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running.start()


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client
