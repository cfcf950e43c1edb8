"""`yolo-queue dead` on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from shared.job_store import JobStore
from shared.jobs import Attempt, DetectParameters, NewJob
from shared.settings import Settings


def dead(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "dead", *arguments],
        env={**os.environ, "REDIS_URL": settings.redis_url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_list_show_retry_and_purge(settings: Settings, tmp_path: Path) -> None:
    store = JobStore(settings.model_copy(update={"max_attempts": 1}))
    ids = []
    for content in (b"first", b"second"):
        job = NewJob("someone", content, "image/png", 1, 1, DetectParameters(conf=0.5))
        store.adopt(job)
        assert isinstance(store.claim(job.task_id, "w"), Attempt)
        assert store.abandon(job.task_id, "worker_lost", attempt=1) == "dead"
        ids.append(job.task_id)

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
