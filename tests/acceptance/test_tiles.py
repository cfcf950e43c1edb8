"""Tiles, as users ask for them: over HTTP, with the client, the command and Celery."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.test_celery import celery
from tests.acceptance.test_cli_commands import yolo_queue
from tests.support.client import problem, submit, wait_for
from tests.support.images import encoded, many_codes, photograph
from tests.support.metrics import samples, scrape, value
from tests.support.models import random_model
from tests.support.stack import Stack, wait_until
from yolo_queue import Client, InvalidRequest, Tiles

CODES = 12 * 3


@pytest.fixture(scope="module")
def picture() -> bytes:
    """2,000 x 1,500 pixels, with twelve times three small codes."""
    return encoded(many_codes(4, 3)[0], "JPEG", quality=92)


def test_a_job_with_tiles_finds_what_one_without_does_not(
    client: httpx.Client, picture: bytes
) -> None:
    plain = wait_for(client, submit(client, picture)["task_id"])
    assert "tiles" not in plain
    assert len(plain["detections"]) < CODES
    job = wait_for(client, submit(client, picture, tile="auto", conf=0.5)["task_id"])
    assert job["tiles"] == {"count": 12, "size": 640, "overlap": 0.2}
    assert len(job["detections"]) == CODES
    assert (job["width"], job["height"]) == (2000, 1500)
    assert all(0 <= d["box"]["x1"] < d["box"]["x2"] <= 2000 for d in job["detections"])
    assert client.get(f"/result/{job['task_id']}/image").headers["content-type"] == "image/jpeg"
    job = wait_for(client, submit(client, picture, tile=800, overlap=0.5, conf=0.5)["task_id"])
    assert job["tiles"] == {"count": 12, "size": 800, "overlap": 0.5}
    assert len(job["detections"]) == CODES


def test_a_small_picture_is_not_cut(client: httpx.Client) -> None:
    small = encoded(many_codes(1, 1)[0], "JPEG", quality=92)
    job = wait_for(client, submit(client, small, tile="auto", conf=0.5)["task_id"])
    assert job["tiles"] == {"count": 0, "size": 640, "overlap": 0.2}
    assert len(job["detections"]) == 3


def test_in_a_batch(client: httpx.Client, picture: bytes) -> None:
    files = [("files", ("a.jpg", picture)), ("files", ("b.jpg", photograph()))]
    answer = client.post("/predict/batch", files=files, params={"tile": 1000})
    jobs = [wait_for(client, job["task_id"]) for job in answer.json()["jobs"]]
    assert [job["tiles"]["count"] for job in jobs] == [6, 2]


def accepted(client: httpx.Client) -> float:
    metrics = samples(scrape(f"{client.base_url}/metrics"))
    return value(metrics, "yolo_queue_jobs_accepted_total")


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ({"tile": "100"}, "invalid_parameter", "256"),
        ({"tile": "4096"}, "invalid_parameter", "2048"),
        ({"tile": "large"}, "invalid_parameter", "auto"),
        ({"tile": "640", "overlap": "0.6"}, "invalid_parameter", "overlap"),
        ({"tile": "256", "overlap": "0.5"}, "too_many_tiles", "MAX_TILES"),
        ({"tile": "640", "imgsz": "1920"}, "too_many_tiles", "smaller imgsz"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_stored(
    client: httpx.Client, query: dict[str, str], code: str, words: str
) -> None:
    large = encoded(many_codes(12, 8)[0], "JPEG", quality=50)
    before = accepted(client)
    answer = client.post("/predict/", files={"file": large}, params=query)
    assert words in problem(answer, 422, code)["detail"]
    assert accepted(client) == before


def test_client(stack: Stack, picture: bytes) -> None:
    with Client(stack.url) as queue:
        job = queue.predict(picture, tile="auto", conf=0.5, annotate=False).wait()
        assert job.tiles == Tiles(count=12, size=640, overlap=0.2)
        assert len(job.detections) == CODES
        assert queue.predict(picture).wait().tiles is None
        with pytest.raises(InvalidRequest):
            queue.predict(picture, tile=100)


def test_detect(stack: Stack, picture: bytes, tmp_path: Path) -> None:
    (tmp_path / "codes.jpg").write_bytes(picture)
    options = ["--tile", "640", "--overlap", "0.3", "--conf", "0.5", "--format", "json"]
    done = yolo_queue("detect", tmp_path / "codes.jpg", "--url", stack.url, *options)
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["tiles"] == {"count": 15, "size": 640, "overlap": 0.3}
    assert len(job["detections"]) == CODES


def test_an_inline_task(stack: Stack, client: httpx.Client, picture: bytes) -> None:
    def call(**arguments: object) -> dict[str, object]:
        text = json.dumps({"image": base64.b64encode(picture).decode(), **arguments})
        task_id = celery(stack, "call", "yolo.detect", "--kwargs", text).strip()
        wait_until(
            lambda: client.get(f"/result/{task_id}").status_code == 200, seconds=20, what="adopted"
        )
        return wait_for(client, task_id)

    small = encoded(many_codes(2, 1)[0], "JPEG", quality=80)
    job = call(image=base64.b64encode(small).decode(), tile="auto")
    assert job["tiles"] == {"count": 2, "size": 640, "overlap": 0.2}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("classifier")
    weights = random_model("yolov8n-cls.yaml", folder)
    with Stack(folder, YOLO_MODEL=str(weights), WORKER_CONCURRENCY="1") as stack:
        yield stack.start()


def test_a_classifier_takes_no_tiles(classifier: Stack, picture: bytes) -> None:
    with httpx.Client(base_url=classifier.url, timeout=30) as client:

        def is_described() -> bool:
            return bool(client.get("/model").status_code == 200)

        wait_until(is_described, seconds=20, what="its worker has described it")
        answer = client.post("/predict/", files={"file": picture}, params={"tile": "auto"})
        assert "classifies" in problem(answer, 422, "invalid_parameter")["detail"]
        assert wait_for(client, submit(client, picture)["task_id"])["status"] == "completed"
