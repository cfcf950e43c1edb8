"""The HTTP contract (design: section 2) against the running service."""

from __future__ import annotations

import base64
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.support.client import problem, submit, wait_for
from tests.support.images import encoded, noise, photograph, sample, undecodable
from tests.support.stack import ROOT, Stack
from tests.unit.test_image_header import png_declaring

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(0, width) * max(0, height)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / (area - inner)


@pytest.mark.parametrize(
    "name", sorted(json.loads((ROOT / "models/samples/expected.json").read_text()))
)
def test_every_code_in_the_samples_is_found(client: httpx.Client, name: str) -> None:
    expected = json.loads((ROOT / "models/samples/expected.json").read_text())[name]
    job = wait_for(client, submit(client, sample(name))["task_id"])
    assert job["status"] == "completed"
    found = [(d["name"], list(d["box"].values())) for d in job["detections"]]
    for truth in expected:
        matches = [
            box for kind, box in found if kind == truth["name"] and iou(box, truth["box"]) > 0.7
        ]
        assert len(matches) == 1, (truth, found)
    assert len(found) == len(expected), "no false alarms"


def test_a_repeated_submission_has_the_result_of_its_completed_job(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "repeated", "Content-Type": "image/jpeg"}
    first = client.post("/predict/", content=sample(), headers=headers)
    assert first.status_code == 201
    job = wait_for(client, first.json()["task_id"])
    again = client.post("/predict/", content=sample(), headers=headers)
    assert again.status_code == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == job


def test_the_job_object_from_queued_to_completed(client: httpx.Client) -> None:
    answer = client.post("/predict/", files={"file": sample()})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/result/{job['task_id']}" == job["links"]["self"]
    assert job["status"] == "queued"
    assert job["attempts"] == 0
    assert job["position"] >= 1
    assert set(job["links"]) == {"self", "image", "events", "cancel"}

    job = wait_for(client, job["task_id"])
    assert job["status"] == "completed"
    assert job["attempts"] == 1
    for name in ("created_at", "started_at", "finished_at"):
        assert RFC3339.match(job[name]), job[name]
    assert "position" not in job
    assert "error" not in job
    assert job["model"] == "demo"
    assert job["task"] == "detect"
    assert set(job["timings_ms"]) == {"queue", "decode", "infer", "draw", "total"}
    detection = job["detections"][0]
    assert set(detection) == {"name", "class", "confidence", "box"}
    assert set(detection["box"]) == {"x1", "y1", "x2", "y2"}

    head, _, content = job["image"].partition(",")
    assert head == "data:image/jpeg;base64"
    picture = base64.b64decode(content)
    assert Image.open(io.BytesIO(picture)).size == (job["width"], job["height"])
    image = client.get(job["links"]["image"])
    assert image.headers["content-type"] == "image/jpeg"
    assert image.content == picture


def test_boxes_are_drawn_where_the_detections_are(client: httpx.Client) -> None:
    original = Image.open(io.BytesIO(sample())).convert("RGB")
    job = wait_for(client, submit(client, sample())["task_id"])
    drawn = Image.open(io.BytesIO(client.get(job["links"]["image"]).content)).convert("RGB")
    for detection in job["detections"]:
        box = detection["box"]
        middle = int((box["y1"] + box["y2"]) / 2)
        near = [(round(box["x1"]) + step, middle) for step in range(-3, 4)]

        def change(at: tuple[int, int]) -> int:
            pixels = zip(drawn.getpixel(at), original.getpixel(at), strict=True)
            return sum(abs(a - b) for a, b in pixels)

        assert max(map(change, near)) > 100, f"no line near {near[3]}"


def test_a_raw_body_gives_the_same_as_a_form(client: httpx.Client) -> None:
    raw = client.post("/predict/", content=sample(), headers={"Content-Type": "image/jpeg"})
    assert raw.status_code == 201
    first = wait_for(client, raw.json()["task_id"])
    second = wait_for(client, submit(client, sample())["task_id"])
    assert first["detections"] == second["detections"]


def test_parameters_reach_the_model(client: httpx.Client) -> None:
    everything = wait_for(client, submit(client, sample())["task_id"])
    kinds = {d["class"] for d in everything["detections"]}
    assert len(kinds) > 1
    only = wait_for(client, submit(client, sample(), classes=min(kinds))["task_id"])
    assert {d["class"] for d in only["detections"]} == {min(kinds)}
    several = wait_for(client, submit(client, sample(), classes="0,1,2")["task_id"])
    assert several["detections"] == everything["detections"]
    one = wait_for(client, submit(client, sample(), max_det=1)["task_id"])
    assert len(one["detections"]) == 1
    strict = wait_for(client, submit(client, sample(), conf=1.0)["task_id"])
    assert strict["detections"] == []
    plain = wait_for(client, submit(client, sample(), annotate=False)["task_id"])
    assert plain["image"] is None
    problem(client.get(plain["links"]["image"]), 409, "job_not_completed")


@pytest.mark.parametrize(
    "query",
    ["conf=2", "iou=-1", "imgsz=0", "imgsz=many", "max_det=0", "classes=cat", "colour=red"],
)
def test_bad_parameters(client: httpx.Client, query: str) -> None:
    answer = client.post(f"/predict/?{query}", files={"file": sample()})
    body = problem(answer, 422, "invalid_parameter")
    assert query.split("=")[0] in str(body["detail"])


def test_a_class_the_model_does_not_have_fails_the_job(client: httpx.Client) -> None:
    job = wait_for(client, submit(client, sample(), classes=99)["task_id"])
    assert job["status"] == "failed"
    assert job["error"]["code"] == "invalid_task"
    assert "0 to 2" in job["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"%PDF-1.7 not an image", 415, "unsupported_media_type"),
        (b"MZ" + bytes(500), 415, "unsupported_media_type"),
        (b"", 422, "image_missing"),
        (png_declaring(50_000, 50_000), 422, "too_many_pixels"),
        (encoded(noise(100, 100), "JPEG")[:2000], 422, "invalid_image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "invalid_image"),
        (b"\xff\xd8\xff\xe0" + bytes(21 * 1024 * 1024), 413, "upload_too_large"),
    ],
    ids=["pdf", "exe", "empty", "bomb", "truncated", "broken", "large"],
)
@pytest.mark.parametrize("form", [True, False])
def test_bad_files_are_refused_before_anything_is_stored(
    client: httpx.Client, stack: Stack, content: bytes, status: int, code: str, form: bool
) -> None:
    before = client.get("/metrics").text
    if form:
        answer = client.post("/predict/", files={"file": ("holiday.jpg", content)})
    else:
        answer = client.post("/predict/", content=content, headers={"Content-Type": "image/jpeg"})
    problem(answer, status, code)
    after = client.get("/metrics").text
    accepted = re.compile(r"^yolo_queue_jobs_accepted_total .*$", re.MULTILINE)
    assert accepted.findall(before) == accepted.findall(after) != []


def test_bad_forms(client: httpx.Client) -> None:
    problem(client.post("/predict/", files={"photo": sample()}), 422, "image_missing")
    problem(client.post("/predict/", data={"file": "text"}), 415, "unsupported_media_type")
    problem(client.post("/predict/", json={"file": "text"}), 415, "unsupported_media_type")
    problem(client.post("/predict/"), 422, "image_missing")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(client.post("/predict/", content=b"--y\r\n", headers=broken), 422, "invalid_image")
    two = [("file", ("a.jpg", sample())), ("file", ("b.jpg", sample()))]
    problem(client.post("/predict/", files=two), 422, "invalid_image")


def test_unknown_paths_ids_and_methods(client: httpx.Client) -> None:
    unknown = "/result/00000000-0000-4000-8000-000000000000"
    problem(client.get(unknown), 404, "job_not_found")
    problem(client.get(unknown + "/image"), 404, "job_not_found")
    problem(client.get("/nowhere"), 404, "not_found")
    problem(client.put("/predict/"), 405, "method_not_allowed")
    problem(client.get("/result/" + "x" * 100), 422, "invalid_parameter")


def test_an_image_that_cannot_be_decoded_fails_the_job(client: httpx.Client) -> None:
    job = wait_for(client, submit(client, undecodable())["task_id"])
    assert job["status"] == "failed"
    assert job["error"]["code"] == "image_undecodable"
    assert job["error"]["retryable"] is False
    assert job["attempts"] == 1
    problem(client.get(job["links"]["image"]), 409, "job_not_completed")


def test_detections_are_bit_identical_whatever_runs_beside_them(client: httpx.Client) -> None:
    """Many concurrent streams of mixed images against one after the other (design: section 4)."""
    images = [sample(), sample("qr_code.jpg"), photograph(), encoded(noise(300, 500), "PNG")]
    serial = [wait_for(client, submit(client, image)["task_id"])["detections"] for image in images]

    def stream(offset: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as own:
            for step in range(len(images)):
                which = (offset + step) % len(images)
                job = wait_for(own, submit(own, images[which])["task_id"], seconds=120)
                assert job["detections"] == serial[which]

    with ThreadPoolExecutor(8) as pool:
        for outcome in [pool.submit(stream, offset) for offset in range(8)]:
            outcome.result()


def test_queue_health_ready_metrics_and_docs(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {
        "status": "ready",
        "ready_processes": 2,
        "models": {"demo": 2},
    }
    queue = client.get("/queue").json()
    assert queue["ready_processes"] == 2
    assert [list(worker["models"]) for worker in queue["workers"]] == [["demo"]]
    assert "# TYPE yolo_queue_jobs_accepted_total counter" in client.get("/metrics").text
    page = client.get("/docs").text
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert path.startswith("/"), "nothing from another host"
        assert client.get(path).status_code == 200, path
    document = client.get("/openapi.json").json()
    documented = document["paths"]["/predict/"]["post"]["responses"]
    assert set(documented) == {
        *("200", "201", "401", "404", "408", "413", "415", "422", "429", "503")
    }


def test_security_headers(client: httpx.Client) -> None:
    for answer in (client.get("/docs"), client.get("/nowhere"), client.get("/queue")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_an_event_id_that_redis_could_not_read_is_refused(client: httpx.Client) -> None:
    """Its parts have 64 bits there; a larger one broke the stream off in the middle."""
    link = submit(client, sample())["links"]["events"]
    for last, status in (("9" * 20 + "-0", 422), ("9" * 19 + "-" + "9" * 19, 200)):
        with client.stream("GET", link, headers={"Last-Event-ID": last}) as answer:
            assert answer.status_code == status
            answer.read()
