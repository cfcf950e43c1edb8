"""Runs the parts of a job with many tiles (docs/decisions/0011-tiles.md).

Each part is claimed, leased and lost by itself. It looks at some of the tiles, and delivers what it
has found. The part that comes last makes the result of all of it, and commits the job.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from shared import tracing
from shared.job.keys import job_of, part_number
from shared.job.record import Attempt, DetectParameters
from shared.job.worker_store import Delivery
from shared.tiling import passes_of
from worker.attempt import Outcome, attempted, carry_out, lease_lost
from worker.model.detector import Detector
from worker.model.findings import Findings
from worker.model.images import DecodedImage
from worker.picture import decode_for, fetch, outcome_of, tiles_field, tiling_for
from worker.process.child import PoolProcess

log = logging.getLogger("yolo_queue.worker")


def run_part(process: PoolProcess, attempt: Attempt) -> dict[str, Any]:
    """Look at a part's tiles, and deliver what they show; of the last part, commit the job's
    result. Returns and raises as `attempt.carry_out`."""
    more_wait = False
    try:
        part, found = attempted(process, attempt, lambda: _look(process, attempt))
        delivery = process.store.deliver(attempt, found)
        more_wait = delivery.more_wait
        if delivery.status == "stale":
            lease_lost(process, attempt)
        if delivery.status == "delivered":
            process.row.count_end("delivered")
            log.info("part %d of %d delivered", part.number + 1, attempt.record.parts)
            return {"part": part.number + 1, "parts": attempt.record.parts}
        # A part's record does not know the size of the job's upload.
        record = replace(attempt.record, size_bytes=delivery.size_bytes)
        attempt = replace(attempt, record=record)
        return carry_out(process, attempt, lambda: part.put_together(delivery))
    finally:
        if not more_wait:
            process.kept.forget()


def _look(process: PoolProcess, attempt: Attempt) -> tuple[_Part, bytes]:
    """The part, and its findings as they are delivered."""
    part = _Part(process, attempt)
    return part, part.findings.to_bytes()


class _Part:
    """A part, as one process runs it."""

    def __init__(self, process: PoolProcess, attempt: Attempt) -> None:
        """Look at its tiles. Raises `JobError`."""
        self._process, self._attempt = process, attempt
        self._detector: Detector = process.detector_of(attempt)
        self._parameters = DetectParameters.model_validate(attempt.record.parameters)
        self.number = part_number(attempt.task_id) or 0
        begin = time.perf_counter()
        self._decoded = self._picture()
        decode_seconds = time.perf_counter() - begin
        tiling = tiling_for(process, attempt, self._parameters, self._decoded)
        assert tiling is not None  # noqa: S101 - no job is in parts without tiles
        self._tiling = tiling
        self.findings = self._find(self.number, decode_seconds)
        infer_seconds = self.findings.infer_seconds
        tracing.stages(begin, decode=decode_seconds, infer=infer_seconds)

    def put_together(self, delivery: Delivery) -> Outcome:
        """The job's result, of what this part and all others have found."""
        begin = time.perf_counter()
        fitting = {self.number: self.findings}
        for number, delivered in self._process.store.found(self._attempt).items():
            findings = Findings.read(delivered)
            # Those of other weights, or with other settings, would not fit.
            if findings and findings.made_as == self.findings.made_as:
                fitting[number] = findings
        for number in range(self._attempt.record.parts):
            if number not in fitting:
                fitting[number] = self._look_again(number)
        ordered = [fitting[number] for number in sorted(fitting)]
        found = [one for part in ordered for one in part.found]
        prediction = self._detector.merge(found, self._decoded, self._parameters, 0.0)
        result, jpeg = outcome_of(
            self._process, self._attempt, self._decoded, prediction, begin, 0.0
        )
        timings = result["timings_ms"]
        total_ms = delivery.queue_ms + delivery.run_ms + (time.perf_counter() - begin) * 1000
        decode_ms = sum(part.decode_seconds for part in ordered) * 1000
        infer_ms = timings["infer"] + sum(part.infer_seconds for part in ordered) * 1000
        timings |= {"queue": float(delivery.queue_ms), "decode": round(decode_ms, 1)}
        timings |= {"infer": round(infer_ms, 1), "total": round(total_ms, 1)}
        return result | tiles_field(self._tiling), jpeg

    def _look_again(self, number: int) -> Findings:
        """At another part's tiles. What is found is kept, so that an attempt that runs out of time
        meanwhile has not been in vain."""
        log.info("looking again at part %d: other weights, or it is gone", number + 1)
        findings = self._find(number, 0.0)
        if not self._process.store.keep_found(self._attempt, number, findings.to_bytes()):
            lease_lost(self._process, self._attempt)
        return findings

    def _picture(self) -> DecodedImage:
        """Decoded before, if this process has run the job's previous part."""
        kept = self._process.kept
        if kept.decoded is None:
            with tracing.span("fetch"):
                image = fetch(self._process, self._attempt)
            decoded = decode_for(self._process, image, self._parameters)
            kept.keep(job_of(self._attempt.task_id), decoded)
            return decoded
        return kept.decoded

    def _find(self, number: int, decode_seconds: float) -> Findings:
        begin = time.perf_counter()
        tiles = passes_of(self._tiling, number, self._attempt.record.parts)
        found = self._detector.find(self._decoded, tiles, self._parameters)
        seconds = time.perf_counter() - begin
        return Findings(found, self._made_as(), decode_seconds, infer_seconds=seconds)

    def _made_as(self) -> str:
        """What all parts of a result must have in common. Workers may be of different versions for
        a while, of the weights or of the settings."""
        served, tiling = self._detector.served, self._tiling
        height, width = self._decoded.pixels.shape[:2]
        return f"{served.version} {width}x{height} {tiling.count} of {tiling.size}"
