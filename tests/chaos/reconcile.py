"""Every id that was ever accepted against what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import redis

from shared.job.record import JobState
from tests.chaos.cases import Case
from tests.chaos.faults import Fault

Stream = list[tuple[float, str]]


@dataclass
class Verdict:
    jobs: int = 0
    states: dict[str, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    discrepancies: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)


def reconcile(
    client: httpx.Client, store: redis.Redis, accepted: dict[str, Case], faults: list[Fault]
) -> Verdict:
    verdict = Verdict()
    streams: dict[str, Stream] = {}
    for task_id, case in accepted.items():
        verdict.jobs += 1
        answer = client.get(f"/result/{task_id}")
        if answer.status_code != 200:
            verdict.discrepancies.append(f"{task_id} ({case.name}) is lost: {answer.status_code}")
            continue
        job = answer.json()
        streams[task_id] = stream = [
            (int(entry.partition(b"-")[0]) / 1000, fields[b"status"].decode())
            for entry, fields in store.xrange(f"yolo:events:{task_id}")
        ]
        verdict.states[job["status"]] = verdict.states.get(job["status"], 0) + 1
        verdict.attempts[job["attempts"]] = verdict.attempts.get(job["attempts"], 0) + 1
        for fault in check(job, case, stream):
            verdict.discrepancies.append(f"{task_id} ({case.name}): {fault}")
    for fault in faults:
        times = verdict.recoveries.setdefault(fault.name, [])
        if fault.recovered_seconds is not None:
            times.append(fault.recovered_seconds)
        for task_id in fault.victims:
            # Until it runs elsewhere, or was finished after all.
            after = [
                at for at, state in streams.get(task_id, []) if at > fault.at and state != "queued"
            ]
            if after:
                times.append(min(after) - fault.at)
    return verdict


def check(job: dict[str, Any], case: Case, stream: Stream) -> list[str]:
    """What is wrong with a job's end."""
    wrong = []
    ends = [state for _, state in stream if JobState(state).terminal]
    if len(ends) != 1:
        wrong.append(f"{len(ends)} terminal states: {[state for _, state in stream]}")
    starts = sum(state == "processing" for _, state in stream)
    if starts != job["attempts"]:
        wrong.append(f"{job['attempts']} attempts in the record, {starts} in the stream")
    if case.error:
        code = job.get("error", {}).get("code")
        # The last of a poisoned job's attempts may itself have fallen victim to a fault.
        if job["status"] != "failed" or code not in (case.error, "worker_lost"):
            wrong.append(f"{job['status']} {code} instead of {case.error}")
    elif job["status"] != "completed":
        wrong.append(f"{job['status']} {job.get('error')}")
    elif job["detections"] != case.detections:
        wrong.append("the wrong result")
    elif not job["image"]:
        wrong.append("no picture")
    return wrong
