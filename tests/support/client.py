"""Submits, waits and checks refusals, with a plain httpx client."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.stack import wait_until

TERMINAL = {"completed", "failed", "cancelled", "expired"}


def submit(client: httpx.Client, image: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/predict/", files={"file": ("image.jpg", image)}, params=query)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which must be problem+json with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = dict(answer.json())
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body


def wait_for(client: httpx.Client, task_id: str, *, seconds: float = 30) -> dict[str, Any]:
    """The job object once the job has ended."""

    def ended() -> dict[str, Any] | None:
        answer = client.get(f"/result/{task_id}")
        assert answer.status_code == 200, answer.text
        job = dict(answer.json())
        return job if job["status"] in TERMINAL else None

    return dict(wait_until(ended, seconds=seconds, what=f"job {task_id} ends"))
