"""Runs one job, or one part of a job: what happens to its picture between claim and commit.

Jobs that share a forward pass: batch.py. Jobs with many tiles: parts.py.
"""

from __future__ import annotations

import time
from typing import Any

from shared import tracing
from shared.job.record import Attempt, DetectParameters
from shared.logs import about_task
from worker.attempt import Outcome, carry_out, claim
from worker.parts import run_part
from worker.picture import decode_for, fetch, outcome_of, tiles_field, tiling_for
from worker.process.child import PoolProcess


def run_job(process: PoolProcess, task_id: str) -> dict[str, Any]:
    """Claim, work, commit. Returns the result as it was committed, without the picture.

    Raises `JobError` for a failure that was committed, and Celery's `Ignore` when there is nothing
    to do: the message is a leftover, or another attempt has taken over.
    """
    with about_task(task_id):
        return run_alone(process, claim(process, task_id))


def run_alone(process: PoolProcess, attempt: Attempt) -> dict[str, Any]:
    with tracing.attempt_span(attempt):
        if attempt.record.parts > 1:
            return run_part(process, attempt)
        return carry_out(process, attempt, lambda: _work(process, attempt))


def _work(process: PoolProcess, attempt: Attempt) -> Outcome:
    parameters = DetectParameters.model_validate(attempt.record.parameters)
    with tracing.span("fetch"):
        image = fetch(process, attempt)
    begin = time.perf_counter()
    decoded = decode_for(process, image, parameters)
    decode_seconds = time.perf_counter() - begin
    detector = process.detector_of(attempt)
    tiling = tiling_for(process, attempt, parameters, decoded)
    if tiling and tiling.count:
        begin_infer = time.perf_counter()
        found = detector.find(decoded, tiling.passes(), parameters)
        seconds = time.perf_counter() - begin_infer
        prediction = detector.merge(found, decoded, parameters, seconds)
    else:
        prediction = detector.predict(decoded, parameters)
    result, jpeg = outcome_of(process, attempt, decoded, prediction, begin, decode_seconds)
    return result | tiles_field(tiling), jpeg
