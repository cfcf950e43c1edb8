"""Jobs that were given up, and `yolo-queue dead`, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.job.dead_letters import DeadLetters
from shared.job.gateway_store import GatewayStore
from shared.job.record import DetectParameters, JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import claimed, job, state_of

pytestmark = pytest.mark.anyio


async def test_attempts_are_bounded_and_the_last_one_makes_a_dead_letter(
    gateway: GatewayStore, store: WorkerStore, settings: Settings
) -> None:
    record, _ = await gateway.accept(job(image=b"poison"))
    for number in range(1, settings.max_attempts + 1):
        assert claimed(store, record.task_id).number == number
        outcome = store.abandon(record.task_id, "worker_lost", attempt=number)
        assert outcome == ("dead" if number == settings.max_attempts else "requeued")
        assert store.abandon(record.task_id, "worker_lost", attempt=number) == "stale"
    found = await gateway.read(record.task_id)
    assert found is not None
    assert found[0].error is not None
    assert found[0].error["code"] == "worker_lost"

    letters = DeadLetters(settings, store)
    letter = letters.find(record.task_id)
    assert letter is not None
    assert [attempt["attempt"] for attempt in letter.history] == [1, 2, 3]
    assert {attempt["reason"] for attempt in letter.history} == {"worker_lost"}
    assert letters.image(record.task_id) == b"poison"

    new_id = letters.retry(record.task_id)
    assert new_id is not None
    assert new_id != record.task_id
    assert store.image(new_id) == b"poison"
    assert await state_of(gateway, new_id) is JobState.QUEUED
    assert await state_of(gateway, record.task_id) is JobState.FAILED
    assert letters.list() == []


async def test_dead_letters_are_bounded_in_number_and_bytes(settings: Settings) -> None:
    tight = settings.model_copy(
        update={"dead_max_jobs": 3, "dead_max_bytes": 250, "max_attempts": 1}
    )
    gateway, store = GatewayStore(tight), WorkerStore(tight)
    ids = []
    for size in (10, 10, 10, 10, 100, 200):
        record, _ = await gateway.accept(job(image=bytes(size)))
        claimed(store, record.task_id)
        assert store.abandon(record.task_id, "timeout", attempt=1) == "dead"
        ids.append(record.task_id)
    letters = DeadLetters(tight, store)
    assert [letter.task_id for letter in letters.list()] == [ids[5]]
    assert letters.image(ids[4]) is None
    assert letters.purge([ids[5]]) == 1
    assert store.redis.keys("yolo:dead*") == []
    await gateway.close()


def dead(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "yolo_queue.cli.main", "dead", *arguments],
        env={**os.environ, "REDIS_URL": settings.redis_url.get_secret_value(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_list_show_retry_and_purge(settings: Settings, tmp_path: Path) -> None:
    store = WorkerStore(settings.model_copy(update={"max_attempts": 1}))
    ids = []
    for content in (b"first", b"second"):
        new = job("someone", image=content, parameters=DetectParameters(conf=0.5))
        store.accept(new)
        claimed(store, new.task_id)
        assert store.abandon(new.task_id, "worker_lost", attempt=1) == "dead"
        ids.append(new.task_id)

    listed = dead(settings, "list")
    assert listed.returncode == 0
    assert all(task_id in listed.stdout for task_id in ids)
    saved = tmp_path / "image.png"
    shown = dead(settings, "show", ids[0], "--save-image", str(saved))
    letter = json.loads(shown.stdout)
    assert letter["parameters"]["conf"] == 0.5
    assert [attempt["reason"] for attempt in letter["history"]] == ["worker_lost"]
    assert saved.read_bytes() == b"first"

    retried = dead(settings, "retry", ids[0])
    assert store.image(retried.stdout.strip()) == b"first"
    assert ids[0] not in dead(settings, "list").stdout
    assert "1 deleted" in dead(settings, "purge").stdout
    missing = dead(settings, "show", ids[1])
    assert missing.returncode == 1
    assert "no dead letter" in missing.stderr
