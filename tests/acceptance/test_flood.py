"""A flood of uploads is refused in words, takes bounded memory, and loses no accepted job."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import redis

from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.processes import resident_mib
from tests.support.stack import Stack

MIB = 1 << 20
REDIS_LIMIT = 128 * MIB


def test_a_flood_of_large_images_takes_bounded_memory(tmp_path: Path) -> None:
    large = encoded(noise(2000, 1500), "JPEG", quality=95)
    assert len(large) > 2 * MIB
    budget = 8 * len(large)
    with Stack(tmp_path, MAX_GATEWAY_UPLOAD_BYTES=str(budget), WORKER_CONCURRENCY="1") as stack:
        stack.redis.max_bytes = REDIS_LIMIT
        stack.start(workers=0)
        before = resident_mib(stack.gateway.pid)
        answers: list[httpx.Response] = []
        peak = before

        def client() -> None:
            """Send, whatever the answer, until Redis has been full for a while."""
            full = 0
            with httpx.Client(base_url=stack.url, timeout=60) as own:
                while full < 3:
                    headers = {"Content-Type": "image/jpeg"}
                    answer = own.post("/predict/", content=large, headers=headers)
                    answers.append(answer)
                    full += answer.status_code == 503 and "memory limit" in answer.json()["detail"]

        threads = [threading.Thread(target=client) for _ in range(16)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(timeout=0.1)
            peak = max(peak, resident_mib(stack.gateway.pid))
        accepted = [answer.json()["task_id"] for answer in answers if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert accepted
        assert refused
        assert {answer.status_code for answer in refused} == {503}
        codes = {answer.json()["code"] for answer in refused}
        assert codes <= {"redis_unavailable", "gateway_busy"}
        assert any("memory limit" in answer.json()["detail"] for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        # Twice the budget: an upload and its copy on the way to Redis.
        assert peak - before < 2 * budget / MIB + 50, f"{before:.0f} -> {peak:.0f} MiB"
        with redis.Redis(port=stack.redis.port) as store:
            assert store.info("memory")["used_memory"] < REDIS_LIMIT
            assert store.info("stats")["evicted_keys"] == 0

        # Room for results was kept: what was accepted can be finished, then there is room again.
        stack.start_worker()
        with httpx.Client(base_url=stack.url, timeout=60) as own:
            for task_id in accepted:
                assert wait_for(own, task_id, seconds=120)["status"] == "completed"
            assert wait_for(own, submit(own, sample())["task_id"])["status"] == "completed"
