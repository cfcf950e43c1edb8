"""Thousands of broken uploads and requests: no 5xx, no undocumented answer, no dead worker."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.errors import UndecodableImage, UploadError
from shared.image_header import check_file
from tests.support.client import submit, wait_for
from tests.support.images import encoded, noise, quadrants, sample
from tests.support.machine import environment
from tests.support.processes import pool_pids
from tests.support.stack import Stack
from worker.model.images import decode

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
CASES = 600
"""Mutated files of each format for the checks and the decoder in this process."""
LIMIT = 10_000_000


def mutations(data: bytes, source: random.Random) -> bytes:
    """One of several ways in which files go bad."""
    changed = bytearray(data)
    how: list[Callable[[], object]] = [
        lambda: changed.__setitem__(source.randrange(len(changed)), source.randrange(256)),
        lambda: changed.__delitem__(slice(source.randrange(1, len(changed)), None)),
        lambda: changed.__setitem__(
            slice((at := source.randrange(len(changed))), at + 8), source.randbytes(8)
        ),
        lambda: changed.__setitem__(
            slice((at := source.randrange(min(64, len(changed)))), at + 4), b"\xff\xff\xff\x7f"
        ),
        lambda: changed.extend(source.randbytes(source.randrange(200))),
    ]
    for _ in range(source.randint(1, 4)):
        if len(changed) > 1:
            source.choice(how)()
    return bytes(changed)


@pytest.mark.parametrize("form", FORMATS)
def test_checks_and_decoder_raise_only_their_own_errors(form: str) -> None:
    source = random.Random(f"{form}-1")
    original = encoded(quadrants(96, 64), form)
    refused = 0
    for _ in range(CASES):
        data = mutations(original, source)
        try:
            check_file(data, max_pixels=LIMIT)
            pixels = decode(data, max_pixels=LIMIT, min_side=32).pixels
            assert pixels.ndim == 3
        except (UploadError, UndecodableImage):
            refused += 1
    assert 0 < refused < CASES, "some mutations are harmless, some are not"


def test_mutated_uploads_do_the_service_no_harm(stack: Stack, client: httpx.Client) -> None:
    source = random.Random(7)
    workers = pool_pids(stack.workers[0])
    originals = [encoded(noise(64, 48), form) for form in FORMATS]
    accepted = []
    for number in range(300):
        data = mutations(originals[number % len(originals)], source)
        answer = client.post(
            "/predict/", files={"file": data}, params={"annotate": number % 2 == 0}
        )
        assert answer.status_code in (201, 413, 415, 422), answer.text
        if answer.status_code == 201:
            accepted.append(answer.json()["task_id"])
    ends = [wait_for(client, task_id, seconds=60) for task_id in accepted]
    assert {job["status"] for job in ends} <= {"completed", "failed"}
    assert {job["attempts"] for job in ends} == {1}
    failed = {job["error"]["code"] for job in ends if job["status"] == "failed"}
    assert failed <= {"image_undecodable"}
    assert pool_pids(stack.workers[0]) == workers, "no process died"
    assert wait_for(client, submit(client, sample())["task_id"])["status"] == "completed"


def test_the_http_surface_against_its_own_document(stack: Stack, tmp_path: Path) -> None:
    """schemathesis makes requests from /openapi.json and checks every answer against it."""
    out = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{stack.url}/openapi.json",
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--max-examples", "25", "--seed", "1", "--no-color", "--generation-deterministic"),
            *("--request-timeout", "20", "--workers", "2"),
        ],
        cwd=tmp_path,
        env=environment(PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert out.returncode == 0, out.stdout[-6000:] + out.stderr[-2000:]
    assert "unresolvable" not in out.stdout
    made = re.search(r"(\d+) generated, (\d+) passed", out.stdout)
    assert made, out.stdout[-3000:]
    assert int(made.group(1)) == int(made.group(2)) > 300
