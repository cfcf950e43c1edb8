"""The largest pictures that are allowed, in a worker under the memory limit that Compose sets."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.support.client import wait_for
from tests.support.largest_pictures import largest_picture
from tests.support.memory_cgroup import memory_cgroup, why_not
from tests.support.processes import pool_pids
from tests.support.stack import ROOT, Stack

HEAVIEST = (
    "PNG 16 bits with alpha, 50 megapixels",
    "TIFF 16 bits with alpha, 50 megapixels",
    "JPEG progressive CMYK",
    "HEIC 10 bits with alpha, 50 megapixels",
    "AVIF 10 bits, 50 megapixels",
    "AVIF 10 bits with alpha, 25 megapixels",
)
"""By `python -m bench.decode_memory`."""


def compose_limit_bytes() -> int:
    compose = (ROOT / "docker-compose.yml").read_text()
    (gigabytes,) = re.findall(r"\$\{WORKER_MEMORY:-(\d+)G\}", compose)
    return int(gigabytes) << 30


def test_the_largest_pictures_do_not_cost_a_worker_its_process(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with (
        memory_cgroup(compose_limit_bytes()) as cgroup,
        Stack(tmp_path, WORKER_CONCURRENCY="1") as stack,
    ):
        stack.start(workers=0)
        worker = stack.start_worker(within=cgroup.join)
        stack.wait_ready(processes=1)
        before = pool_pids(worker)
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            for kind in HEAVIEST:
                answer = client.post("/predict/", files={"file": largest_picture(kind)})
                assert answer.status_code == 201, (kind, answer.text)
                job = wait_for(client, answer.json()["task_id"], seconds=120)
                assert (job["status"], job["attempts"]) == ("completed", 1), (kind, job)
        assert pool_pids(worker) == before
        assert 300 << 20 < cgroup.peak_bytes <= compose_limit_bytes(), "it ran under the limit"
