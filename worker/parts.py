"""Runs the parts of a job with many tiles (docs/decisions/0011-tiles.md).

Each part is claimed, leased and lost by itself. It looks at some of the tiles, and delivers what it
has found. The part that comes last makes the result of all of it, and commits the job.
"""

from __future__ import annotations

import logging
import time
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
    part = _Part(process, attempt)
    findings = attempted(process, attempt, part.look)
    delivery = process.store.deliver(attempt, findings.to_bytes())
    if delivery.status == "stale":
        lease_lost(process, attempt)
    if delivery.status == "delivered":
        process.row.count_end("delivered")
        log.info("part %d of %d delivered", part.number + 1, attempt.record.parts)
        return {"part": part.number + 1, "parts": attempt.record.parts}
    try:
        return carry_out(process, attempt, lambda: part.put_together(findings, delivery))
    finally:
        process.kept.forget()


class _Part:
    """A part, as one process runs it."""

    def __init__(self, process: PoolProcess, attempt: Attempt) -> None:
        self._process, self._attempt = process, attempt
        self._detector: Detector = process.detector_of(attempt)
        self._parameters = DetectParameters.model_validate(attempt.record.parameters)
        self.number = part_number(attempt.task_id) or 0

    def look(self) -> Findings:
        """What the tiles of this part show. Raises `JobError`."""
        begin = time.perf_counter()
        self._decoded = self._picture()
        decode_seconds = time.perf_counter() - begin
        tiling = tiling_for(self._process, self._attempt, self._parameters, self._decoded)
        assert tiling is not None  # noqa: S101 - no job is in parts without tiles
        self._tiling = tiling
        return self._look(self.number, decode_seconds)

    def put_together(self, findings: Findings, delivery: Delivery) -> Outcome:
        """The job's result, of what this part and all others have found."""
        begin = time.perf_counter()
        all_of_them = {self.number: findings}
        for number, delivered in self._process.store.found(self._attempt).items():
            all_of_them[number] = Findings.from_bytes(delivered)
        # Those of another version of the model, or with other settings, would not fit.
        fitting = {n: one for n, one in all_of_them.items() if one.made_as == findings.made_as}
        for number in range(self._attempt.record.parts):
            if number not in fitting:
                log.info("looking again at part %d: other weights, or it is gone", number + 1)
                fitting[number] = self._look(number, 0.0)
        ordered = [fitting[number] for number in sorted(fitting)]
        found = [one for part in ordered for one in part.found]
        infer_seconds = sum(part.infer_seconds for part in ordered)
        prediction = self._detector.merge(found, self._decoded, self._parameters, infer_seconds)
        result, jpeg = outcome_of(
            *(self._process, self._attempt, self._decoded, prediction),
            *(begin, sum(part.decode_seconds for part in ordered)),
        )
        total_ms = delivery.queue_ms + delivery.run_ms + (time.perf_counter() - begin) * 1000
        result["timings_ms"] |= {"queue": float(delivery.queue_ms), "total": round(total_ms, 1)}
        return result | tiles_field(self._tiling), jpeg

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

    def _look(self, number: int, decode_seconds: float) -> Findings:
        begin = time.perf_counter()
        tiles = passes_of(self._tiling, number, self._attempt.record.parts)
        found = self._detector.find(self._decoded, tiles, self._parameters)
        return Findings(
            found, self._made_as(), decode_seconds, infer_seconds=time.perf_counter() - begin
        )

    def _made_as(self) -> str:
        """What all parts of a result must have in common. Workers may be of different versions for
        a while, of the weights or of the settings."""
        served, tiling = self._detector.served, self._tiling
        height, width = self._decoded.pixels.shape[:2]
        return f"{served.version} {width}x{height} {tiling.count} of {tiling.size}"
