"""Held answers, events, cancelling, batches and result formats."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.client import problem, submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.metrics import samples, scrape, value
from tests.support.stack import Stack, wait_until

SMALL = encoded(noise(40, 30), "PNG")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose worker is not there yet: jobs stay queued until a test starts one."""
    with Stack(
        tmp_path_factory.mktemp("idle"),
        MAX_QUEUE_JOBS="8",
        MAX_BATCH_FILES="4",
        WORKER_CONCURRENCY="1",
    ) as stack:
        yield stack.start(workers=0)


@pytest.fixture
def idle_client(idle: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=idle.url, timeout=90) as client:
        yield client


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event id, data) of a stream, as they come."""
    event_id, kind = "", ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            assert kind == "job"
            yield event_id, json.loads(value)
            event_id = ""


def test_prefer_wait_holds_the_answer_to_a_submission(client: httpx.Client) -> None:
    answer = client.post("/predict/", files={"file": sample()}, headers={"Prefer": "wait=30"})
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["status"] == "completed"
    assert answer.json()["image"].startswith("data:image/jpeg")


def test_wait_holds_the_answer_until_the_job_has_ended(client: httpx.Client) -> None:
    task_id = submit(client, sample())["task_id"]
    job = client.get(f"/result/{task_id}", params={"wait": 30}).json()
    assert job["status"] == "completed"


def test_wait_answers_when_the_time_is_up(idle_client: httpx.Client) -> None:
    task_id = submit(idle_client, SMALL)["task_id"]
    begin = time.monotonic()
    job = idle_client.get(f"/result/{task_id}", params={"wait": 1}).json()
    assert job["status"] == "queued"
    assert 0.9 < time.monotonic() - begin < 5
    problem(idle_client.get(f"/result/{task_id}", params={"wait": -1}), 422, "invalid_parameter")
    assert idle_client.delete(f"/result/{task_id}").status_code == 200


def test_events_tell_every_change_and_end_with_the_job(client: httpx.Client) -> None:
    task_id = submit(client, sample())["task_id"]
    with client.stream("GET", f"/result/{task_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = list(events(answer))
    states = [data["status"] for event_id, data in seen if event_id]
    assert states == ["queued", "processing", "completed"]
    last = seen[-1][1]
    assert last["detections"]
    assert last["image"] == f"/result/{task_id}/image", "a link instead of the picture"

    ids = [event_id for event_id, _ in seen if event_id]
    with client.stream(
        "GET", f"/result/{task_id}/events", headers={"Last-Event-ID": ids[0]}
    ) as answer:
        resumed = [data["status"] for _, data in events(answer)]
    assert resumed == ["processing", "completed"], "continues after the event it names"
    problem(client.get("/result/unknown/events"), 404, "job_not_found")


def test_events_tell_the_position_while_queued(idle_client: httpx.Client) -> None:
    first = submit(idle_client, SMALL)["task_id"]
    second = submit(idle_client, SMALL)["task_id"]
    positions: list[int | None] = []
    with idle_client.stream("GET", f"/result/{second}/events") as answer:
        for _, data in events(answer):
            positions.append(data.get("position"))
            if data["status"] == "cancelled":
                break
            doomed = first if len(positions) == 1 else second
            threading.Thread(
                target=httpx.delete, args=(f"{idle_client.base_url}/result/{doomed}",)
            ).start()
    assert positions[:2] == [2, 1]
    assert positions[-1] is None


def test_a_cancelled_job_never_runs(idle: Stack, idle_client: httpx.Client) -> None:
    doomed = submit(idle_client, sample())["task_id"]
    answer = idle_client.delete(f"/result/{doomed}")
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    problem(idle_client.delete(f"/result/{doomed}"), 409, "job_already_finished")
    # Its message is still in the broker; it stays cancelled through a restart and when it is taken.
    idle.redis.stop()
    idle.redis.start()
    kept = submit(idle_client, sample())["task_id"]
    worker = idle.start_worker()
    try:
        assert wait_for(idle_client, kept, seconds=60)["status"] == "completed"
        job = idle_client.get(f"/result/{doomed}").json()
        assert job["status"] == "cancelled"
        assert job["attempts"] == 0
        problem(idle_client.delete(f"/result/{kept}"), 409, "job_already_finished")
        problem(idle_client.delete("/result/unknown"), 404, "job_not_found")
    finally:
        worker.terminate()
        worker.wait(timeout=30)


def test_a_running_job_that_is_cancelled_commits_nothing(client: httpx.Client) -> None:
    large = encoded(noise(6000, 5000), "JPEG", quality=50)
    task_id = submit(client, large)["task_id"]
    wait_until(
        lambda: client.get(f"/result/{task_id}").json()["status"] == "processing",
        seconds=20,
        what="it runs",
    )
    assert client.delete(f"/result/{task_id}").json()["status"] == "cancelled"
    before = client.get("/queue").json()["finished_total"]
    # The next jobs go through the same processes after it.
    for task in [submit(client, SMALL)["task_id"] for _ in range(6)]:
        assert wait_for(client, task)["status"] == "completed"
    job = client.get(f"/result/{task_id}").json()
    assert job["status"] == "cancelled"
    assert "detections" not in job
    assert client.get("/queue").json()["finished_total"] == before + 6


def test_a_batch_is_accepted_whole(client: httpx.Client) -> None:
    files = [("files", (name, sample(name))) for name in ("mixed.jpg", "qr_code.jpg")]
    answer = client.post("/predict/batch", files=files, params={"annotate": False})
    assert answer.status_code == 201
    jobs = answer.json()["jobs"]
    ends = [wait_for(client, job["task_id"]) for job in jobs]
    assert [end["status"] for end in ends] == ["completed", "completed"]
    singles = [
        wait_for(client, submit(client, sample(n))["task_id"]) for n in ("mixed.jpg", "qr_code.jpg")
    ]
    assert [end["detections"] for end in ends] == [one["detections"] for one in singles]


def test_a_batch_is_refused_whole(idle_client: httpx.Client) -> None:
    def depth() -> int:
        return int(idle_client.get("/queue").json()["depth"])

    before = depth()
    bad = [("files", ("a.png", SMALL)), ("files", ("b.pdf", b"%PDF-1.7"))]
    problem(idle_client.post("/predict/batch", files=bad), 415, "unsupported_media_type")
    many = [("files", (f"{n}.png", SMALL)) for n in range(5)]
    problem(idle_client.post("/predict/batch", files=many), 422, "invalid_image")
    assert depth() == before
    ids = []
    while depth() + 4 <= 8:
        answer = idle_client.post("/predict/batch", files=many[:4])
        assert answer.status_code == 201
        ids += [job["task_id"] for job in answer.json()["jobs"]]
    full = depth()
    refusal = idle_client.post("/predict/batch", files=many[:4])
    problem(refusal, 503, "queue_full")
    assert int(refusal.headers["retry-after"]) >= 1
    assert depth() == full
    for task_id in ids:
        idle_client.delete(f"/result/{task_id}")


def test_other_formats_of_a_result(client: httpx.Client, idle_client: httpx.Client) -> None:
    job = wait_for(client, submit(client, sample())["task_id"])
    link = job["links"]["self"]
    first = job["detections"][0]
    coco = client.get(link, params={"format": "coco"}).json()
    assert len(coco) == len(job["detections"])
    box = first["box"]
    assert coco[0]["bbox"][2] == pytest.approx(box["x2"] - box["x1"], abs=0.01)
    yolo = client.get(link, params={"format": "yolo"})
    assert yolo.headers["content-type"].startswith("text/plain")
    numbers = [float(text) for text in yolo.text.splitlines()[0].split()]
    assert numbers[1] == pytest.approx((box["x1"] + box["x2"]) / 2 / job["width"], abs=1e-5)
    assert numbers[5] == pytest.approx(first["confidence"], abs=1e-4)
    rows = list(csv.DictReader(io.StringIO(client.get(link, params={"format": "csv"}).text)))
    assert float(rows[0]["x1"]) == box["x1"]
    problem(client.get(link, params={"format": "xml"}), 422, "invalid_parameter")
    waiting = submit(idle_client, SMALL)["links"]["self"]
    problem(idle_client.get(waiting, params={"format": "coco"}), 409, "job_not_completed")
    idle_client.delete(waiting)


def test_a_result_can_be_cached_and_a_job_under_way_cannot(
    client: httpx.Client, idle_client: httpx.Client
) -> None:
    job = wait_for(client, submit(client, sample())["task_id"])
    for link in (job["links"]["self"], job["links"]["image"]):
        answer = client.get(link)
        assert "immutable" in answer.headers["cache-control"]
        again = client.get(link, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
    tags = {
        client.get(job["links"]["self"], params={"format": f}).headers["etag"]
        for f in ("json", "csv")
    }
    assert len(tags) == 2
    waiting = submit(idle_client, SMALL)["links"]["self"]
    assert idle_client.get(waiting).headers["cache-control"] == "no-store"
    idle_client.delete(waiting)


def test_a_stopping_gateway_answers_its_waiters(tmp_path: Any) -> None:
    with Stack(tmp_path) as stack:
        stack.redis.start()
        gateway = stack.start_gateway()
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            task_id = submit(client, SMALL)["task_id"]
            outcome: list[httpx.Response] = []

            def hold() -> None:
                outcome.append(httpx.get(f"{stack.url}/result/{task_id}?wait=50", timeout=60))

            waiter = threading.Thread(target=hold)
            waiter.start()
            wait_until(lambda: _waiting_requests(stack) == 1, seconds=10, what="it is held")
            gateway.terminate()
            waiter.join(timeout=10)
            assert not waiter.is_alive()
            assert outcome[0].status_code == 200
            assert outcome[0].json()["status"] == "queued"
            assert gateway.wait(timeout=10) is not None


def _waiting_requests(stack: Stack) -> float:
    return value(samples(scrape(stack.url + "/metrics")), "yolo_queue_gateway_waiting_requests")
