"""What pool processes do with the parts of a job: a real store and the demo model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Ignore
from PIL import Image

from shared.errors import InvalidTask
from shared.job.gateway_store import GatewayStore
from shared.job.keys import part_of
from shared.job.record import Attempt, DetectParameters, JobState
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from shared.tiling import parts_of
from tests.support.images import encoded, many_codes
from tests.support.jobs import MODEL, MODELS, job, state_of
from tests.support.models import random_model
from tests.support.stack import DEMO_MODEL
from worker.job import run_job
from worker.model.detector import Detector
from worker.model.images import decode
from worker.model.runtimes import prepare
from worker.process.child import PoolProcess
from worker.process.shared_memory import SharedMemory

pytestmark = pytest.mark.anyio

PARAMETERS = DetectParameters(tile=640, conf=0.5)
PICTURE, PLACES = many_codes(4, 3)
FILE = encoded(PICTURE, "JPEG", quality=92)
PARTS = 2


def detector_of(weights: Path, cache: Path) -> Detector:
    settings = Settings(
        yolo_model=str(weights), yolo_runtime="openvino", model_cache_dir=str(cache)
    )
    return Detector(settings, prepare(settings), threads=1)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return detector_of(DEMO_MODEL, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def expected(detector: Detector) -> list[dict[str, Any]]:
    """Of all tiles in one go."""
    decoded = decode(FILE, max_pixels=50_000_000)
    tiling = PARAMETERS.tiling(decoded.width, decoded.height, 200)
    assert tiling
    assert parts_of(tiling, 640) == PARTS
    found = detector.find(decoded, tiling.passes(), PARAMETERS)
    return detector.merge(found, decoded, PARAMETERS, 0.0).detections


def pool_process(settings: Settings, store: WorkerStore, detector: Detector) -> PoolProcess:
    row = SharedMemory().row(0)
    row.announce_loaded(1)
    return PoolProcess(settings, {MODEL: detector}, store, "w", row, lambda: MODELS)


async def accepted(gateway: GatewayStore, parameters: DetectParameters = PARAMETERS) -> str:
    new = job(
        image=FILE,
        parameters=parameters,
        content_type="image/jpeg",
        width=PICTURE.width,
        height=PICTURE.height,
        parts=PARTS,
    )
    record, _ = await gateway.accept(new)
    return record.task_id


async def result_of(gateway: GatewayStore, task_id: str) -> dict[str, Any]:
    found = await gateway.read(task_id)
    assert found is not None
    assert found[1] is not None, found[0]
    result: dict[str, Any] = json.loads(bytes(found[1]))
    return result


async def test_parts_find_what_one_process_finds_in_one_go(
    gateway: GatewayStore,
    store: WorkerStore,
    settings: Settings,
    detector: Detector,
    expected: list[dict[str, Any]],
) -> None:
    one, other = (pool_process(settings, store, detector) for _ in range(2))
    task_id = await accepted(gateway)
    assert run_job(one, part_of(task_id, 1)) == {"part": 2, "parts": 2}
    assert run_job(other, part_of(task_id, 0))["detections"] == expected
    result = await result_of(gateway, task_id)
    assert result["detections"] == expected
    assert len(expected) == 3 * len(PLACES)
    assert result["tiles"] == {"count": 12, "size": 640, "overlap": 0.2}
    assert (result["width"], result["height"]) == PICTURE.size
    assert result["image"].startswith("data:image/jpeg;base64,")
    timings = result["timings_ms"]
    assert timings["infer"] > 0
    assert timings["total"] >= timings["queue"] + timings["draw"]


async def test_a_process_decodes_a_picture_once(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, detector: Detector
) -> None:
    process = pool_process(settings, store, detector)
    task_id = await accepted(gateway)
    run_job(process, part_of(task_id, 0))
    assert process.kept.task_id == task_id
    store.redis.delete(f"yolo:image:{task_id}")
    run_job(process, part_of(task_id, 1))
    assert await state_of(gateway, task_id) is JobState.COMPLETED
    assert process.kept.decoded is None, "nobody needs it any more"


async def test_another_job_comes_before_the_kept_picture(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, detector: Detector
) -> None:
    process = pool_process(settings, store, detector)
    first, second = await accepted(gateway), await accepted(gateway)
    run_job(process, part_of(first, 0))
    run_job(process, part_of(second, 0))
    assert process.kept.task_id == second
    run_job(process, part_of(first, 1))
    run_job(process, part_of(second, 1))
    assert await state_of(gateway, first) is JobState.COMPLETED
    assert await state_of(gateway, second) is JobState.COMPLETED


@pytest.mark.parametrize("how", ["other weights", "gone"])
async def test_what_does_not_fit_is_looked_at_again(
    how: str,
    gateway: GatewayStore,
    store: WorkerStore,
    settings: Settings,
    detector: Detector,
    expected: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """A worker with new weights takes over, or Redis has lost what was found."""
    task_id = await accepted(gateway)
    if how == "other weights":
        old = detector_of(random_model("yolov8n.yaml", tmp_path), tmp_path)
        run_job(pool_process(settings, store, old), part_of(task_id, 0))
    else:
        run_job(pool_process(settings, store, detector), part_of(task_id, 0))
        store.redis.delete(f"yolo:found:{part_of(task_id, 0)}")
    run_job(pool_process(settings, store, detector), part_of(task_id, 1))
    result = await result_of(gateway, task_id)
    assert result["detections"] == expected
    assert result["model_version"] == detector.served.version


class ForgetfulStore(WorkerStore):
    """Has nothing of the other parts, and takes the last one away at that moment."""

    def found(self, attempt: Attempt) -> dict[int, bytes]:
        assert self.abandon(attempt.task_id, "worker_lost", worker="w") == "requeued"
        return {}


async def test_who_has_lost_the_last_part_does_not_look_at_the_others(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, detector: Detector
) -> None:
    task_id = await accepted(gateway)
    run_job(pool_process(settings, store, detector), part_of(task_id, 0))
    process = pool_process(settings, ForgetfulStore(settings), detector)
    with pytest.raises(Ignore):
        run_job(process, part_of(task_id, 1))
    assert process.kept.decoded is None
    assert await state_of(gateway, task_id) is JobState.PROCESSING
    run_job(pool_process(settings, store, detector), part_of(task_id, 1))
    assert await state_of(gateway, task_id) is JobState.COMPLETED


async def test_a_cancelled_job_costs_no_more_parts(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, detector: Detector
) -> None:
    process = pool_process(settings, store, detector)
    task_id = await accepted(gateway)
    run_job(process, part_of(task_id, 0))
    found = await gateway.read(task_id)
    assert found is not None
    await gateway.cancel(found[0])
    with pytest.raises(Ignore):
        run_job(process, part_of(task_id, 1))
    assert await state_of(gateway, task_id) is JobState.CANCELLED


async def test_a_part_that_cannot_be_done_fails_the_job(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, detector: Detector
) -> None:
    process = pool_process(settings, store, detector)
    task_id = await accepted(gateway, PARAMETERS.model_copy(update={"classes": (99,)}))
    with pytest.raises(InvalidTask, match="no class 99"):
        run_job(process, part_of(task_id, 1))
    assert await state_of(gateway, task_id) is JobState.FAILED


async def test_a_worker_refuses_tiles_for_a_classifier(
    gateway: GatewayStore, store: WorkerStore, settings: Settings, tmp_path: Path
) -> None:
    """Whatever the gateway has thought of the model."""
    classifier = detector_of(random_model("yolov8n-cls.yaml", tmp_path), tmp_path)
    task_id = await accepted(gateway)
    with pytest.raises(InvalidTask, match="classifies"):
        run_job(pool_process(settings, store, classifier), part_of(task_id, 0))
    assert await state_of(gateway, task_id) is JobState.FAILED


def test_the_picture_is_large_enough() -> None:
    assert Image.open(io.BytesIO(FILE)).size == (2000, 1500)
