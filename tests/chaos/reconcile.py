"""Compares every job that was accepted with what became of it: its end, its answer, its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis

from api.problems import STATUS
from shared.job.record import JobState
from tests.chaos.cases import Case
from tests.chaos.faults import Fault
from tests.chaos.load import CaseLoad
from yolo_queue import Client, JobNotFound
from yolo_queue.cli import stress_account

REFUSALS = {error.code for error, status in STATUS.items() if status == 503} | {"unreachable"}
"""Codes that a client may meet while parts are away. All of them are worth another try."""

Stream = list[tuple[float, str]]
"""(time, state) of a job's events."""


@dataclass
class Verdict:
    account: dict[str, Any] = field(default_factory=dict)
    discrepancies: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    """Seconds, by fault."""


def reconcile(client: Client, store: redis.Redis, load: CaseLoad, faults: list[Fault]) -> Verdict:
    """The account of `yolo-queue stress`, and on top of it what only a chaos run knows: the answer
    that each case must get, and the events of each job."""
    verdict = Verdict()
    streams: dict[str, Stream] = {}
    for shot in load.shots:
        if shot.ended is None:
            continue
        try:
            job = client.job(shot.task_id)
        except JobNotFound:
            shot.state = "lost"
            continue
        shot.compare(job)
        streams[shot.task_id] = stream = [
            (int(entry.partition(b"-")[0]) / 1000, fields[b"status"].decode())
            for entry, fields in store.xrange(f"yolo:events:{shot.task_id}")
        ]
        case = load.case(shot)
        for wrong in check(job.data, case, stream):
            verdict.discrepancies.append(f"{shot.task_id} ({case.name}): {wrong}")
    verdict.account = account = stress_account.reconcile(load.shots)
    for shot in load.shots:
        if shot.changed or shot.state in ("lost", "unfinished", "refused"):
            name = f"{shot.task_id or shot.index} ({load.case(shot).name})"
            verdict.discrepancies.append(f"{name}: {shot.state} {shot.code} {shot.changed}")
    if not account["ok"]:
        verdict.discrepancies.append(f"the account is wrong: {account}")
    if unknown := account["refusals_by_code"].keys() - REFUSALS:
        verdict.discrepancies.append(f"refused with {unknown}")
    for fault in faults:
        verdict.recoveries.setdefault(fault.name, []).extend(recovery_seconds(fault, streams))
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
        # A fault may also have hit the last attempt of a poisoned job.
        if job["status"] != "failed" or code not in (case.error, "worker_lost"):
            wrong.append(f"{job['status']} {code} instead of {case.error}")
    elif job["status"] != "completed":
        wrong.append(f"{job['status']} {job.get('error')}")
    elif job["detections"] != case.detections:
        wrong.append("the wrong result")
    elif not job["image"]:
        wrong.append("no picture")
    return wrong


def recovery_seconds(fault: Fault, streams: dict[str, Stream]) -> list[float]:
    """How long the service took to recover, and how long each victim took to run elsewhere or to
    end after all."""
    times = [] if fault.recovered_seconds is None else [fault.recovered_seconds]
    for task_id in fault.victims:
        after = [
            at for at, state in streams.get(task_id, []) if at > fault.at and state != "queued"
        ]
        if after:
            times.append(min(after) - fault.at)
    return times
