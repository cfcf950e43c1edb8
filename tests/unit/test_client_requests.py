"""The client's flows with answers that a real service cannot give on demand: refusals, lost
answers, and gateways that do not hold an answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Iterable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import yolo_queue
from yolo_queue.client.errors import from_answer, retry_after_seconds
from yolo_queue.client.flows import Call, Pause, Requests, pause_before_retry
from yolo_queue.client.image_source import encoded

Answer = httpx.Response | httpx.TransportError
ACCEPTED = httpx.Response(201, json={"task_id": "t", "status": "queued", "attempts": 0})


def refused(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"status": status, "code": code, "detail": "No.", "retryable": status in (429, 503)}
    kind = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, json=body, headers={**kind, **headers})


def follow(flow: Generator[Any, Any, Any], answers: Iterable[Answer]) -> tuple[Any, list[Any]]:
    """Run a flow on given answers without its pauses. Returns its outcome and its steps."""
    left, steps = iter(answers), []
    try:
        step = next(flow)
        while True:
            steps.append(step)
            if isinstance(step, Pause):
                step = next(flow)
                continue
            answer = next(left)
            if isinstance(answer, httpx.TransportError):
                step = flow.throw(answer)
            else:
                step = flow.send(answer)
    except StopIteration as done:
        return done.value, steps


def test_a_retry_has_the_same_key_and_waits_for_retry_after() -> None:
    answers = [
        refused(429, "too_many_requests", **{"Retry-After": "7"}),
        refused(503, "queue_full", **{"Retry-After": "3"}),
        httpx.ReadTimeout("the answer was lost"),
        ACCEPTED,
    ]
    job, steps = follow(Requests("http://x", 60).submit(b"image", {"classes": [1, 2]}), answers)
    assert job["task_id"] == "t"
    calls = [step for step in steps if isinstance(step, Call)]
    assert len({call.headers["Idempotency-Key"] for call in calls}) == 1
    assert calls[0].params == {"classes": "1,2"}
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert 7 <= pauses[0] < 8
    assert 3 <= pauses[1] < 4
    assert 0 < pauses[2] < 2


def test_a_pause_beyond_the_deadline_raises_at_once() -> None:
    late = refused(503, "queue_full", **{"Retry-After": "90"})
    with pytest.raises(yolo_queue.Unavailable) as caught:
        follow(Requests("http://x", 60).submit(b"image", {}), [late])
    assert (caught.value.code, caught.value.retry_after) == ("queue_full", 90)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "not_authenticated", yolo_queue.NotAuthenticated),
        (404, "job_not_found", yolo_queue.JobNotFound),
        (409, "job_already_finished", yolo_queue.JobAlreadyFinished),
        (409, "job_not_completed", yolo_queue.JobNotFinished),
        (413, "upload_too_large", yolo_queue.InvalidRequest),
        (422, "invalid_image", yolo_queue.InvalidRequest),
        (500, "internal", yolo_queue.Unavailable),
    ],
)
def test_an_error_that_is_not_retryable_is_raised_at_once(
    status: int, code: str, kind: type[yolo_queue.ApiError]
) -> None:
    with pytest.raises(kind) as caught:
        follow(Requests("http://x", 60).submit(b"image", {}), [refused(status, code)])
    assert (caught.value.status, caught.value.code) == (status, code)
    assert isinstance(caught.value, yolo_queue.ApiError)


def test_an_answer_of_a_proxy_has_a_type_too() -> None:
    error = from_answer(httpx.Response(502, text="<html>Bad gateway</html>"))
    assert isinstance(error, yolo_queue.Unavailable)
    assert error.retryable
    assert error.code == "http_502"


def test_no_answer_at_all() -> None:
    flow = Requests("http://x", 0).fetch("t")
    with pytest.raises(yolo_queue.Unreachable) as caught:
        follow(flow, [httpx.ConnectError("refused")])
    assert caught.value.status is None
    assert "http://x" in str(caught.value)


def test_a_gateway_that_does_not_hold_answers_is_polled_with_growing_pauses() -> None:
    queued = httpx.Response(200, json={"task_id": "t", "status": "queued"})
    ended = httpx.Response(200, json={"task_id": "t", "status": "failed"})
    job, steps = follow(Requests("http://x", 60).wait("t", None), [queued] * 12 + [ended])
    assert job["status"] == "failed"
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert pauses == sorted(pauses)
    assert len(pauses) == 12
    assert pauses[-1] <= 1


def test_waiting_ends_in_time() -> None:
    queued = httpx.Response(200, json={"task_id": "t", "status": "queued"})
    with pytest.raises(TimeoutError, match=r"within 0.01 s"):
        follow(Requests("http://x", 60).wait("t", 0.01), [queued] * 1_000_000)


def test_pauses_double_up_to_a_limit() -> None:
    assert 0.125 <= pause_before_retry(0, None) <= 0.25
    assert 4 <= pause_before_retry(30, None) <= 8


def test_retry_after_may_be_a_date() -> None:
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds("") is None


def test_arrays_are_sent_without_loss(tmp_path: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for given in (array, array[..., ::-1], array[..., 0], Image.fromarray(array)):
        path = tmp_path / "image.png"
        path.write_bytes(encoded(given))
        with Image.open(path) as image:
            assert (np.asarray(image) == np.asarray(given)).all()
    with pytest.raises(TypeError, match="uint8"):
        encoded(array.astype(float))
    with pytest.raises(ValueError, match=r"\(30, 3, 2\)|not \("):
        encoded(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(TypeError, match="NoneType"):
        encoded(None)  # type: ignore[arg-type]


def test_importing_the_client_loads_nothing_but_httpx() -> None:
    """Asked of a fresh interpreter. httpx loads its own command, and rich with it, if click is
    installed; a wheel does not bring click."""
    code = (
        "import sys; sys.modules['click'] = None; import yolo_queue;"
        "print(*[m for m in ('PIL', 'typer', 'rich', 'redis', 'pydantic', 'numpy', 'torch', 'cv2',"
        " 'api', 'worker', 'shared') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
