"""Camera files and hostile files over HTTP, as form and as body, and what is found in them."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.camera_files import CameraFile, camera_files
from tests.support.client import submit, wait_for
from tests.support.hostile_files import hostile_files
from tests.support.images import sample
from tests.support.processes import pool_pids
from tests.support.stack import Stack
from tests.unit.test_camera_files import NOT_SUPPORTED

PICTURE = Image.open(io.BytesIO(sample())).convert("RGB")


@pytest.fixture(scope="module")
def files() -> list[CameraFile]:
    return [file for file in camera_files(PICTURE) if file.name not in NOT_SUPPORTED]


def send(client: httpx.Client, file: CameraFile, way: str) -> httpx.Response:
    query = {"annotate": False}
    if way == "form":
        return client.post("/predict/", files={"file": ("picture", file.data)}, params=query)
    typed = len(file.name) % 2 == 0  # about half of them
    headers = {"Content-Type": file.content_type if typed else "application/octet-stream"}
    return client.post("/predict/", content=file.data, headers=headers, params=query)


@pytest.mark.parametrize("way", ["form", "body"])
def test_every_kind_of_file_is_answered_as_the_plain_picture_is(
    client: httpx.Client, files: list[CameraFile], way: str
) -> None:
    def answer(file: CameraFile) -> dict[str, Any]:
        accepted = send(client, file, way)
        assert accepted.status_code == 201, (file.name, accepted.text)
        return wait_for(client, accepted.json()["task_id"], seconds=60)

    with ThreadPoolExecutor(6) as senders:
        jobs = dict(zip((file.name for file in files), senders.map(answer, files), strict=True))
    plain = jobs[files[0].name]
    assert len(plain["detections"]) == 3
    different = {
        file.name: jobs[file.name]["error"] or jobs[file.name]["detections"]
        for file in files
        if np.array_equal(file.pixels, files[0].pixels) and not alike(plain, jobs[file.name])
    }
    assert different == {}
    sizes = {name: (job["width"], job["height"]) for name, job in jobs.items()}
    assert sizes == {file.name: file.pixels.shape[1::-1] for file in files}


def alike(plain: dict[str, Any], job: dict[str, Any]) -> bool:
    """The same things at the same places, up to what a lossy codec changes."""
    if job["status"] != "completed" or len(plain["detections"]) != len(job["detections"]):
        return False
    rest = list(job["detections"])
    for wanted in plain["detections"]:
        near = [found for found in rest if found["name"] == wanted["name"] and close(wanted, found)]
        if len(near) != 1:
            return False
        rest.remove(near[0])
    return True


def close(wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    corners = zip(wanted["box"].values(), found["box"].values(), strict=True)
    return all(abs(a - b) < 4 for a, b in corners)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["jpeg-baseline", "heic-8-bit"])
def test_a_truncated_picture_is_refused_before_it_is_stored(
    client: httpx.Client, files: list[CameraFile], name: str, kept: float
) -> None:
    (file,) = (file for file in files if file.name == name)
    accepted = accepted_jobs(client)
    answer = client.post("/predict/", files={"file": file.data[: int(kept * len(file.data))]})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_image"
    assert accepted_jobs(client) == accepted


def accepted_jobs(client: httpx.Client) -> list[str]:
    return [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("yolo_queue_jobs_accepted_total")
    ]


@pytest.mark.parametrize("declared", ["application/pdf", "text/plain", "video/mp4"])
def test_a_part_that_is_declared_to_be_no_image_is_refused(
    client: httpx.Client, declared: str
) -> None:
    part = ("scan.jpg", sample(), declared)
    answer = client.post("/predict/", files={"file": part})
    assert answer.status_code == 415
    assert declared in answer.json()["detail"]
    answer = client.post("/predict/batch", files=[("files", sample()), ("files", part)])
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "declared", ["", "application/octet-stream", "image/x-unknown", "IMAGE/png"]
)
def test_any_other_declared_type_gives_way_to_the_content(
    client: httpx.Client, declared: str
) -> None:
    answer = client.post("/predict/", files={"file": ("picture", sample(), declared)})
    assert answer.status_code == 201
    assert wait_for(client, answer.json()["task_id"])["status"] == "completed"


def test_a_body_without_a_type_is_recognised_by_its_content(client: httpx.Client) -> None:
    answer = client.post("/predict/", content=sample())
    assert answer.status_code == 201
    answer = client.post("/predict/", content=b"%PDF-1.7 no picture at all")
    assert answer.status_code == 415
    assert "HEIC" in answer.json()["detail"]


def test_hostile_files_end_as_refusals_or_as_jobs_and_no_process_dies(
    stack: Stack, client: httpx.Client
) -> None:
    before = pool_pids(stack.workers[0])
    accepted = {}
    for name, data in hostile_files(100_000):
        answer = client.post("/predict/", files={"file": data}, params={"annotate": False})
        assert answer.status_code in (201, 415, 422), (name, answer.text)
        if answer.status_code == 201:
            accepted[name] = answer.json()["task_id"]
    jobs = {name: wait_for(client, task, seconds=120) for name, task in accepted.items()}
    errors = {job["error"]["code"] for job in jobs.values() if job["status"] != "completed"}
    assert errors == {"image_undecodable"}
    assert {job["attempts"] for job in jobs.values()} == {1}
    assert pool_pids(stack.workers[0]) == before
    assert wait_for(client, submit(client, sample())["task_id"])["status"] == "completed"


def test_a_heic_that_lies_about_its_size_fails_only_its_job(client: httpx.Client) -> None:
    """64 x 64 pixels declared, 8192 x 8192 coded in 15 KB: 400 MB once they are decoded."""
    bomb = dict(hostile_files(1000))["heic-small-ispe-8192-square-coded"]
    job = wait_for(client, submit(client, bomb)["task_id"])
    assert job["status"] == "failed"
    assert job["error"]["code"] == "image_undecodable"
    assert not job["error"]["retryable"]
