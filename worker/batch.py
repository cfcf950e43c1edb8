"""Runs a claimed job and queued jobs with the same parameters in one forward pass. Each keeps its
own attempt and its own outcome. Only with `MICRO_BATCH_JOBS` above 1.

An image that kills its process ends the attempts of the whole batch. So only first attempts share a
pass: an innocent job loses one attempt at most and runs alone from then on, as does the culprit.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared import tracing
from shared.errors import JobError
from shared.job.keys import MAX_BATCHED_ID_BYTES
from shared.job.record import Attempt, DetectParameters
from shared.logs import about_task
from shared.redis_access.client import UNAVAILABLE
from worker.attempt import Outcome, abandon, carry_out, claim
from worker.job import run_alone
from worker.model.detector import Prediction
from worker.model.images import DecodedImage
from worker.picture import decode_for, fetch, outcome_of
from worker.process.child import PoolProcess
from worker.process.shared_memory import BATCH_ATTEMPT

log = logging.getLogger("yolo_queue.worker")


def run_in_batch(process: PoolProcess, task_id: str) -> dict[str, Any]:
    """`job.run_job`, and with this job those that can share its forward pass. What is returned
    or raised is about this job alone."""
    with about_task(task_id):
        attempt = claim(process, task_id)
        first = attempt.number == BATCH_ATTEMPT
        short = len(task_id.encode()) <= MAX_BATCHED_ID_BYTES
        whole = attempt.record.parameters.get("tile") is None
        if not (first and whole and process.detector_of(attempt).can_batch and short):
            return run_alone(process, attempt)
        batch = Batch(process, attempt)
        try:
            batch.gather()
            if len(batch.members) == 1:
                return run_alone(process, attempt)
            return batch.run()
        except SoftTimeLimitExceeded as error:
            batch.abandon("timeout", error)
            raise Ignore() from error
        except (JobError, Ignore):
            raise
        except Exception as error:
            log.exception("unexpected error")
            batch.abandon("internal", error)
            raise Ignore() from error


class _Member:
    """One job of a batch, and how far it has come."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.begin = time.perf_counter()
        self.fetch_seconds = 0.0
        self.decode_seconds = 0.0
        self.decoded: DecodedImage | None = None
        self.prediction: Prediction | None = None
        self.error: Exception | None = None
        self.ended = False


class Batch:
    def __init__(self, process: PoolProcess, first: Attempt) -> None:
        self._process, self._detector = process, process.detector_of(first)
        self.members = [_Member(first)]
        self._parameters = DetectParameters.model_validate(first.record.parameters)

    def gather(self) -> None:
        """Claim jobs that can run with the first, and name them to the parent."""
        settings = self._process.settings
        self._ask()
        missing = settings.micro_batch_jobs - len(self.members)
        # A job that came alone is not delayed. Where some came together, more may be on the way.
        if len(self.members) > 1 and missing > 0 and settings.micro_batch_wait_ms > 0:
            time.sleep(settings.micro_batch_wait_ms / 1000)
            self._ask()

    def _ask(self) -> None:
        process, first = self._process, self.members[0].attempt
        wanted = process.settings.micro_batch_jobs - len(self.members)
        try:
            found = process.store.claim_more(first, process.worker, wanted)
        except UNAVAILABLE as error:
            # The jobs that wait lose nothing; jobs that were claimed unheard have leases.
            log.warning("no batch: Redis is unavailable (%s)", error)
            return
        if found:  # tell the parent first: if this process dies now, the parent queues them again
            self.members += map(_Member, found)
            others = [member.attempt.task_id for member in self.members[1:]]
            process.row.name_batch(first.task_id, others)

    def run(self) -> dict[str, Any]:
        """Run all of them. Returns or raises the outcome of the first."""
        process = self._process
        process.row.count_batch(len(self.members))
        log.info("%d jobs in one batch", len(self.members))
        for member in self.members:
            with about_task(member.attempt.task_id):
                self._decode(member)
        self._predict([member for member in self.members if member.decoded is not None])
        first: dict[str, Any] | Exception = {}
        for member in self.members:
            ended = self._finish(member)
            if member is self.members[0]:
                first = ended
        process.row.clear_batch()
        if isinstance(first, Exception):
            raise first
        return first

    def _decode(self, member: _Member) -> None:
        try:
            begin = time.perf_counter()
            image = fetch(self._process, member.attempt)
            member.fetch_seconds = time.perf_counter() - begin
            begin = time.perf_counter()
            member.decoded = decode_for(self._process, image, self._parameters)
            member.decode_seconds = time.perf_counter() - begin
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            member.error = error  # its own, for `_finish`

    def _predict(self, ready: list[_Member]) -> None:
        images = [member.decoded for member in ready if member.decoded is not None]
        try:
            predictions = self._detector.predict_batch(images, self._parameters)
        except SoftTimeLimitExceeded:
            raise
        except JobError as error:
            for member in ready:  # about the parameters, which they share
                member.error = error
        except Exception:
            log.warning("the batch failed; its jobs run one by one", exc_info=True)
        else:
            for member, prediction in zip(ready, predictions, strict=True):
                member.prediction = prediction

    def _finish(self, member: _Member) -> dict[str, Any] | Exception:
        """Commit one job. Raises nothing but `SoftTimeLimitExceeded`, which ends the whole
        batch."""
        attempt = member.attempt
        try:
            with about_task(attempt.task_id), tracing.attempt_span(attempt, member.begin):
                result = carry_out(self._process, attempt, lambda: self._outcome(member))
        except (JobError, Ignore) as end:
            member.ended = True
            if isinstance(end.__cause__, SoftTimeLimitExceeded):
                raise end.__cause__ from None
            return end
        member.ended = True
        return result

    def _outcome(self, member: _Member) -> Outcome:
        tracing.stages(member.begin, fetch=member.fetch_seconds)
        if member.error is not None:
            raise member.error
        assert member.decoded is not None  # noqa: S101
        prediction = member.prediction
        if prediction is None:
            prediction = self._detector.predict(member.decoded, self._parameters)
        # Its pictures are not needed any more once it is committed.
        decoded, member.decoded, member.prediction = member.decoded, None, None
        return outcome_of(
            self._process, member.attempt, decoded, prediction, member.begin, member.decode_seconds
        )

    def abandon(self, reason: str, error: Exception) -> None:
        """End the attempts that have no outcome yet; a commit of the last moment stays."""
        for member in self.members:
            if member.ended:
                continue
            attempt = member.attempt
            with (
                suppress(Ignore),
                about_task(attempt.task_id),
                tracing.attempt_span(attempt, member.begin),
            ):
                abandon(self._process, attempt, reason)
                raise Ignore() from error
        self._process.row.clear_batch()
