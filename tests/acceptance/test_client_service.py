"""The Python client against the running service."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images import SAMPLES, encoded, noise, sample
from tests.support.stack import Stack, free_port
from yolo_queue import (
    AsyncClient,
    Client,
    InvalidRequest,
    JobAlreadyFinished,
    JobFailed,
    JobNotFinished,
    JobNotFound,
    NotAuthenticated,
    Unreachable,
    WaitTimeout,
)

BROKEN = bytearray(encoded(noise(100, 80), "PNG"))
BROKEN[60:-60] = bytes(len(BROKEN) - 120)  # a valid header before zeros


@pytest.fixture(scope="module")
def halted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A gateway with keys and no worker: jobs stay queued."""
    with Stack(tmp_path_factory.mktemp("halted"), API_KEYS="alice-key") as stack:
        stack.redis.start()
        stack.start_gateway()
        yield stack


def test_a_picture_from_path_to_saved_boxes(stack: Stack, tmp_path: Path) -> None:
    with Client(stack.url) as queue:
        job = queue.predict(SAMPLES / "mixed.jpg", conf=0.25)
        assert job.status in ("queued", "processing", "completed")
        assert job.wait(timeout=60) is job
        assert job.ended
        assert job.error is None
        found = job.detections
        assert {detection.name for detection in found} <= set(queue.model().names.values())
        assert all(0 < d.confidence <= 1 and d.box and d.box.width > 0 for d in found)
        picture = job.save_image(tmp_path / "annotated.jpg")
        with Image.open(picture) as image:
            assert image.size == (job.width, job.height)
        assert len(job.text("csv").splitlines()) == len(found) + 1
        assert queue.job(job.task_id).detections == found
        with pytest.raises(JobAlreadyFinished):
            job.cancel()


def test_every_kind_of_source_gives_the_same_detections(stack: Stack) -> None:
    with Image.open(io.BytesIO(sample())) as opened:
        image = opened.convert("RGB")
    with Client(stack.url) as queue:
        jobs = [
            queue.predict(source, annotate=False, wait=30).wait(60)
            for source in (image, np.asarray(image), encoded(image, "PNG"))
        ]
        first = jobs[0].detections
        assert first
        assert all(job.detections == first for job in jobs)
        with pytest.raises(JobNotFinished, match="annotate"):
            _ = jobs[0].image


def test_a_failed_job_raises_when_its_result_is_asked_for(stack: Stack) -> None:
    with Client(stack.url) as queue:
        job = queue.predict(bytes(BROKEN)).wait(60)
        assert job.status == "failed"
        with pytest.raises(JobFailed) as caught:
            _ = job.detections
        assert caught.value.code == "image_undecodable"
        assert caught.value.task_id == job.task_id


def test_map_keeps_order_and_goes_on_after_a_bad_image(stack: Stack, tmp_path: Path) -> None:
    sources = [sample("qr_code.jpg"), bytes(BROKEN), b"no image", tmp_path / "none.jpg", sample()]
    with Client(stack.url) as queue:
        outcomes = list(queue.map(sources, concurrency=3))
        assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
        assert [outcome.ok for outcome in outcomes] == [True, False, False, False, True]
        kinds = [type(outcome.error) for outcome in outcomes]
        assert kinds[1:4] == [JobFailed, InvalidRequest, FileNotFoundError]
        assert outcomes[0].result().detections
        with pytest.raises(InvalidRequest):
            outcomes[2].result()
        some = queue.map([sample()] * 50, concurrency=2, ordered=False)
        assert next(some).ok
        some.close()  # leaving early stops the rest


def test_the_asyncio_client(stack: Stack) -> None:
    async def run() -> None:
        async with AsyncClient(stack.url) as queue:
            job = await queue.predict(sample())
            await job.wait(60)
            assert job.detections
            assert (await queue.queue()).ready_processes == 2
            sources = [sample("qr_code.jpg"), b"no image", sample("barcode.jpg")]
            seen = [o async for o in queue.map(sources, concurrency=2, ordered=False)]
            assert sorted(o.index for o in seen) == [0, 1, 2]
            assert sum(o.ok for o in seen) == 2

    asyncio.run(run())


def test_waiting_cancelling_and_keys(halted: Stack) -> None:
    with Client(halted.url, "alice-key") as queue:
        job = queue.predict(sample())
        assert (job.status, job.position) == ("queued", 1)
        with pytest.raises(WaitTimeout):
            job.wait(timeout=0.3)
        with pytest.raises(JobNotFinished):
            _ = job.detections
        assert job.cancel().status == "cancelled"
        with pytest.raises(JobFailed, match="cancelled"):
            _ = job.detections
        with pytest.raises(JobNotFound):
            queue.job("00000000-0000-4000-8000-000000000000")
        same = [queue.predict(sample(), idempotency_key="one").task_id for _ in range(2)]
        assert same[0] == same[1]
    with Client(halted.url) as stranger, pytest.raises(NotAuthenticated):
        stranger.predict(sample())


def test_a_service_that_does_not_answer() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retry_seconds=0) as queue, pytest.raises(Unreachable, match=url):
        queue.queue()
    with pytest.raises(ValueError, match="is not the URL"):
        Client("localhost:8000")
