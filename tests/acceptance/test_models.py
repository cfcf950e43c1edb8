"""Several models behind one gateway: each job runs on the one that it is for."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.test_celery import celery
from tests.support.client import problem, submit, wait_for
from tests.support.images import encoded, noise, sample
from tests.support.metrics import samples, scrape, value
from tests.support.models import renamed_model
from tests.support.stack import DEMO_MODEL, Stack, wait_until
from yolo_queue import Client, ModelNotFound

SMALL = encoded(noise(64, 48), "JPEG")
CODES = {"qr_code", "barcode", "aruco_marker"}
SHAPES = {0: "square", 1: "stripes", 2: "grid"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model under other names."""
    return renamed_model(DEMO_MODEL, tmp_path_factory.mktemp("models") / "shapes.pt", SHAPES)


@pytest.fixture(scope="module")
def two(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker that serves both, `codes` being the default."""
    with Stack(
        tmp_path_factory.mktemp("two"),
        YOLO_MODELS=f"codes={DEMO_MODEL},shapes={weights}",
        WORKER_CONCURRENCY="1",
    ) as stack:
        yield stack.start()


@pytest.fixture
def client(two: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=two.url, timeout=30) as client:
        yield client


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def found(job: dict[str, object]) -> set[str]:
    detections = job["detections"]
    assert isinstance(detections, list)
    return {detection["name"] for detection in detections}


def test_a_job_runs_on_the_model_that_it_names(client: httpx.Client, weights: Path) -> None:
    named = submit(client, sample(), model="shapes")
    assert named["model"] == "shapes"
    unnamed = submit(client, sample())
    assert unnamed["model"] == "codes"
    job = wait_for(client, named["task_id"])
    assert found(job) == set(SHAPES.values())
    assert (job["model"], job["model_version"]) == ("shapes", digest(weights))
    job = wait_for(client, unnamed["task_id"])
    assert found(job) == CODES
    assert (job["model"], job["model_version"]) == ("codes", digest(DEMO_MODEL))


def test_a_batch_is_for_one_model(client: httpx.Client) -> None:
    answer = client.post(
        "/predict/batch", files=[("files", sample())] * 2, params={"model": "shapes"}
    )
    for accepted in answer.json()["jobs"]:
        assert wait_for(client, accepted["task_id"])["model"] == "shapes"


def test_an_unknown_model_is_refused_with_the_names_of_the_others(
    client: httpx.Client, two: Stack
) -> None:
    for answer in (
        client.post("/predict/?model=faces", files={"file": SMALL}),
        client.post("/predict/batch?model=faces", files=[("files", SMALL)]),
        client.get("/models/faces"),
        client.get("/ready?model=faces"),
    ):
        assert "There are: codes, shapes." in problem(answer, 404, "model_not_found")["detail"]
    answer = client.post("/predict/?model=no%20name", files={"file": SMALL})
    problem(answer, 422, "invalid_parameter")
    with Client(two.url) as service, pytest.raises(ModelNotFound, match="codes, shapes"):
        service.predict(SMALL, model="faces")


def test_the_same_key_with_another_model_is_a_conflict(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "one"}
    for model, status in (("codes", 201), ("codes", 200), ("shapes", 422)):
        answer = client.post(
            "/predict/", params={"model": model}, files={"file": SMALL}, headers=headers
        )
        assert answer.status_code == status, answer.text


def test_models_are_described(client: httpx.Client, two: Stack, weights: Path) -> None:
    codes, shapes = client.get("/models").json()["models"]
    assert (codes["name"], codes["default"]) == ("codes", True)
    assert (shapes["name"], shapes["default"]) == ("shapes", False)
    assert shapes["task"] == "detect"
    assert shapes["names"] == {str(number): name for number, name in SHAPES.items()}
    (version,) = shapes["versions"]
    assert version["version"] == digest(weights)
    assert version["short"] == digest(weights)[:12]
    assert version["ready_processes"] == shapes["ready_processes"] == 1
    assert len(version["runtimes"]) == len(version["workers"]) == 1
    assert client.get("/models/shapes").json()["versions"] == shapes["versions"]
    described = client.get("/model").json()
    assert (described["model"], described["names"]) == ("codes", codes["names"])
    with Client(two.url) as service:
        assert [model.model for model in service.models()] == ["codes", "shapes"]
        assert service.model("shapes").names == SHAPES
        assert service.model().names[0] == "qr_code"
        (model, _) = service.models()
        assert model.versions[0].short == digest(DEMO_MODEL)[:12]


def test_the_queue_and_the_metrics_are_told_by_model(client: httpx.Client, two: Stack) -> None:
    before = {name: int(of_model(two, "jobs_accepted_total", name)) for name in ("codes", "shapes")}
    two.workers[0].send_signal(signal.SIGSTOP)
    try:
        ids = [submit(client, SMALL, model="shapes")["task_id"] for _ in range(3)]
        ids.append(submit(client, SMALL)["task_id"])
        queue = client.get("/queue").json()
        assert {model["name"]: model["depth"] for model in queue["models"]} == {
            "codes": 1,
            "shapes": 3,
        }
        assert queue["depth"] == 4
        assert client.get(f"/result/{ids[-1]}").json()["position"] == 1, "of its own model"
        assert of_model(two, "jobs_waiting", "shapes") == 3
    finally:
        two.workers[0].send_signal(signal.SIGCONT)
    for task_id in ids:
        assert wait_for(client, task_id)["status"] == "completed"
    assert of_model(two, "jobs_accepted_total", "shapes") - before["shapes"] == 3
    assert of_model(two, "jobs_accepted_total", "codes") - before["codes"] == 1


def of_model(stack: Stack, name: str, model: str) -> float:
    return value(samples(scrape(f"{stack.url}/metrics")), f"yolo_queue_model_{name}", model=model)


def test_an_inline_task_names_its_model(client: httpx.Client, two: Stack) -> None:
    arguments = {"image": base64.b64encode(SMALL).decode(), "model": "shapes"}
    task_id = celery(two, "call", "yolo.detect", "--kwargs", json.dumps(arguments)).strip()
    wait_until(
        lambda: client.get(f"/result/{task_id}").status_code == 200, seconds=20, what="adopted"
    )
    assert wait_for(client, task_id)["model"] == "shapes"


def test_a_worker_passes_on_an_inline_task_for_another_model(
    client: httpx.Client, two: Stack, weights: Path
) -> None:
    """Every worker takes inline tasks, since their producer knows no lanes."""
    other = two.start_worker("shapes", YOLO_MODELS=f"shapes={weights}")
    two.wait_ready(processes=2)
    two.workers[0].send_signal(signal.SIGSTOP)
    try:
        arguments = {"image": base64.b64encode(SMALL).decode(), "model": "codes"}
        task_id = celery(two, "call", "yolo.detect", "--kwargs", json.dumps(arguments)).strip()
        wait_until(
            lambda: "passed on" in two.log("worker-shapes").read_text(),
            seconds=20,
            what="the other worker has it",
        )
        assert client.get(f"/result/{task_id}").json()["status"] == "queued"
    finally:
        two.workers[0].send_signal(signal.SIGCONT)
        other.terminate()
    job = wait_for(client, task_id)
    assert (job["model"], job["status"], job["attempts"]) == ("codes", "completed", 1)
    assert other.wait(timeout=30) == 0


def test_a_model_can_be_drained_and_its_jobs_wait(client: httpx.Client, two: Stack) -> None:
    version = digest(DEMO_MODEL)
    assert "not served here" in celery(two, "control", "drain_model", "codes", "0000")
    assert "takes no more" in celery(two, "control", "drain_model", "codes", version[:12])
    wait_until(
        lambda: client.get("/ready?model=codes").status_code == 503, seconds=10, what="it says so"
    )
    waiting = submit(client, SMALL)["task_id"]
    done = submit(client, SMALL, model="shapes")["task_id"]
    assert wait_for(client, done)["status"] == "completed"
    assert client.get(f"/result/{waiting}").json()["status"] == "queued"
    assert client.get("/ready").json()["models"] == {"codes": 0, "shapes": 1}
    two.workers[0].terminate()
    assert two.workers[0].wait(timeout=30) == 0
    two.workers[0] = two.start_worker("again")
    assert wait_for(client, waiting, seconds=60)["status"] == "completed"
