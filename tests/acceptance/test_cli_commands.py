"""The commands as a user types them, against the running service."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.camera_files import camera_files
from tests.support.images import SAMPLES, sample
from tests.support.stack import DEMO_MODEL, ROOT, Stack, free_port
from worker.model.weights import version_of


def yolo_queue(
    *arguments: object, given: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "yolo_queue.cli.main", *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1", **environment},
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_detect_writes_each_form(stack: Stack, tmp_path: Path) -> None:
    names = sorted(path.stem for path in SAMPLES.glob("*.jpg"))
    for form in ("json", "yolo", "csv", "coco"):
        out = tmp_path / form
        done = yolo_queue("detect", SAMPLES, "--out", out, "--format", form, "--url", stack.url)
        assert done.returncode == 0, done.stderr
        assert f"{len(names)} of {len(names)} images answered" in done.stdout
    results = {name: json.loads((tmp_path / f"json/{name}.json").read_text()) for name in names}
    count = sum(len(result["detections"]) for result in results.values())
    assert all("image" not in result for result in results.values())
    lines = [(tmp_path / f"yolo/{name}.txt").read_text().splitlines() for name in names]
    assert sum(map(len, lines)) == count
    classes = (tmp_path / "yolo/classes.txt").read_text().splitlines()
    assert "qr_code" in classes
    table = (tmp_path / "csv/detections.csv").read_text().splitlines()
    assert table[0].startswith("file,task_id,class,name")
    assert len(table) == count + 1
    coco = json.loads((tmp_path / "coco/coco.json").read_text())
    assert len(coco["images"]) == len(names)
    assert len(coco["annotations"]) == count
    assert [category["name"] for category in coco["categories"]] == classes


def test_detect_takes_a_folder_of_files_from_a_phone(stack: Stack, tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(sample())).convert("RGB")
    wanted = {"heic-irot-exif-6": "IMG_0001.HEIC", "jpeg-mpo": "IMG_0002.MPO"}
    wanted |= {"jpeg-motion-samsung": "IMG_0003.JPG"}
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in camera_files(picture):
        if file.name in wanted:
            (photos / wanted[file.name]).write_bytes(file.data)
    (photos / "IMG_0004.MOV").write_bytes(b"a film")
    done = yolo_queue("detect", photos, "--out", tmp_path / "out", "--url", stack.url)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 images answered" in done.stdout
    for name in ("IMG_0001", "IMG_0002", "IMG_0003"):
        result = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert (result["width"], result["height"]) == picture.size
        assert len(result["detections"]) == 3


def test_detect_from_stdin_to_stdout(stack: Stack) -> None:
    done = yolo_queue("detect", "-", "--format", "json", given=sample(), YOLO_QUEUE_URL=stack.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["detections"]


def test_detect_writes_the_good_images_and_names_the_bad(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jpg").write_bytes(sample())
    (tmp_path / "x.jpg").write_bytes(b"no image")
    done = yolo_queue(
        *("detect", tmp_path / "**/x.jpg", "--out", tmp_path / "out"),
        *("--save-images", "--url", stack.url, "--classes", "0,1"),
    )
    assert done.returncode == 1
    assert "1 of 2 images answered, 1 failed" in done.stdout
    assert "unsupported_media_type" in done.stdout
    written = sorted(path.suffix for path in (tmp_path / "out").iterdir())
    assert written == [".jpg", ".json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["detect", "nowhere.jpg"], "no file or folder nowhere.jpg"),
        (["detect", "*.nothing"], "Nothing matches"),
        (["detect", "README.md", "--save-images"], "needs --out"),
        (["detect", "README.md", "--classes", "cat"], "--classes takes numbers"),
        (["detect", "README.md"], "does not answer"),
        (["watch", "--once"], "does not answer"),
        (["stress", "-n", "1"], "does not answer"),
        (["stress", "-n", "0"], "--count"),
    ],
)
def test_exit_status_2(arguments: list[str], words: str) -> None:
    done = yolo_queue(*arguments, "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_once(stack: Stack) -> None:
    done = yolo_queue("watch", "--once", "--url", stack.url)
    assert done.returncode == 0, done.stderr
    assert "ready processes 2" in done.stdout
    assert "demo" in done.stdout


def test_models(stack: Stack) -> None:
    done = yolo_queue("models", "--url", stack.url)
    assert done.returncode == 0, done.stderr
    assert "(default)" in done.stdout
    assert version_of(DEMO_MODEL)[:12] in done.stdout, "also on a narrow terminal"


def test_doctor(stack: Stack) -> None:
    environment = {"REDIS_URL": stack.environment["REDIS_URL"]}
    done = yolo_queue("doctor", "--url", stack.url, **environment)
    assert done.returncode == 0, done.stdout
    assert "All is well." in done.stdout
    assert "noeviction" in done.stdout
    done = yolo_queue("doctor", "--url", f"http://127.0.0.1:{free_port()}", **environment)
    assert done.returncode == 1
    assert "Start the service" in done.stdout
    absent = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    done = yolo_queue("doctor", "--url", stack.url, REDIS_URL=absent)
    assert done.returncode == 1
    assert "set REDIS_URL" in done.stdout
    assert "secret" not in done.stdout


def test_stress_accounts_for_every_image(stack: Stack, tmp_path: Path) -> None:
    done = yolo_queue(
        *("stress", "-n", 12, "-c", 6, "--width", 640, "--height", 480),
        *("--out", tmp_path / "run.html", "--url", stack.url),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    account = report["account"]
    assert account["ok"]
    assert account["submitted"] == account["completed"] == account["looked_at_again"] == 12
    assert len({image["task_id"] for image in report["images"]}) == 12
    assert report["latency_seconds"]["end_to_end"]["p99"] > 0
    with httpx.Client(base_url=stack.url) as client:
        for image in report["images"]:
            assert client.get(f"/result/{image['task_id']}").json()["status"] == "completed"
    page = (tmp_path / "run.html").read_text()
    assert "every one accounted for" in page
    assert "<script" not in page
    assert "src=" not in page


def test_stress_at_a_rate_from_a_folder(stack: Stack, tmp_path: Path) -> None:
    done = yolo_queue(
        *("stress", "-n", 6, "--rate", 10, "--folder", SAMPLES, "--no-annotate"),
        *("--out", tmp_path / "run", "--url", stack.url),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["account"]["completed"] == 6
    assert report["images"][5]["started"] >= 0.5


def test_help_has_examples_and_exit_statuses() -> None:
    for command in ("detect", "stress"):
        done = yolo_queue(command, "--help")
        assert done.returncode == 0
        assert "Examples:" in done.stdout
        assert "xit status" in done.stdout
