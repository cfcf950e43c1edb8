"""A few lines over httpx: submit, wait, compare."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.stack import wait_until

TERMINAL = {"completed", "failed", "cancelled", "expired"}


def submit(client: httpx.Client, image: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/predict/", files={"file": ("image.jpg", image)}, params=query)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def wait_for(client: httpx.Client, task_id: str, *, seconds: float = 30) -> dict[str, Any]:
    """The job once it has ended."""

    def ended() -> dict[str, Any] | None:
        answer = client.get(f"/result/{task_id}")
        assert answer.status_code == 200, answer.text
        job = dict(answer.json())
        return job if job["status"] in TERMINAL else None

    return dict(wait_until(ended, seconds=seconds, what=f"job {task_id} ends"))
