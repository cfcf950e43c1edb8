"""Compares every job that was accepted with what became of it: its end and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.problems import STATUS
from tests.chaos.cases import Case
from tests.chaos.faults import Fault
from tests.chaos.history_load import Audit
from tests.chaos.load import CaseLoad
from yolo_queue import JobFields
from yolo_queue.cli import stress_account

REFUSALS = {error.code for error, status in STATUS.items() if status == 503} | {"unreachable"}
"""Codes that a client may meet while parts are away. All of them are worth another try."""


@dataclass
class Verdict:
    account: dict[str, Any] = field(default_factory=dict)
    discrepancies: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """What is impossible about the history."""
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    """Seconds, by fault."""


def reconcile(
    load: CaseLoad, others: Mapping[str, Case], audits: Mapping[str, Audit], faults: list[Fault]
) -> Verdict:
    """The account of `yolo-queue stress`, and on top of it what only a chaos run knows: the answer
    that each case must get. `others`: the cases of the history's jobs, which may be cancelled."""
    verdict = Verdict()
    cases = dict(others)
    for shot in load.shots:
        if shot.ended is None:
            continue
        cases[shot.task_id] = load.case(shot)
        if shot.task_id in audits:
            shot.compare(JobFields(audits[shot.task_id].job))
        else:
            shot.state = "lost"
    for task_id, case in cases.items():
        job = audits[task_id].job if task_id in audits else {"status": "lost"}
        if task_id in others and job["status"] == "cancelled":
            continue
        for wrong in check(job, case, picture=task_id not in others):
            verdict.discrepancies.append(f"{task_id} ({case.name}): {wrong}")
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
        verdict.recoveries.setdefault(fault.name, []).extend(recovery_seconds(fault, audits))
    return verdict


def check(job: dict[str, Any], case: Case, *, picture: bool) -> list[str]:
    """What is wrong with a job's end. `picture`: whether it was requested."""
    wrong = []
    if case.error:
        code = job.get("error", {}).get("code")
        # A fault may also have hit the last attempt of a poisoned job.
        if job["status"] != "failed" or code not in (case.error, "worker_lost"):
            wrong.append(f"{job['status']} {code} instead of {case.error}")
    elif job["status"] != "completed":
        wrong.append(f"{job['status']} {job.get('error')}")
    elif job["detections"] != case.detections:
        wrong.append("the wrong result")
    elif picture and not job["image"]:
        wrong.append("no picture")
    return wrong


def recovery_seconds(fault: Fault, audits: Mapping[str, Audit]) -> list[float]:
    """How long the service took to recover, and how long each victim took to run elsewhere or to
    end after all."""
    times = [] if fault.recovered_seconds is None else [fault.recovered_seconds]
    for task_id in fault.victims:
        events = audits[task_id].events if task_id in audits else []
        after = [at for at, state in changes(events) if at > fault.at and state != "queued"]
        if after:
            times.append(min(after) - fault.at)
    return times


def changes(events: Iterable[Mapping[str, Any]]) -> list[tuple[float, str]]:
    """(time, state) of a job's events: their ids are Redis' clock in milliseconds."""
    return [(int(one["id"].partition("-")[0]) / 1000, one["data"]["status"]) for one in events]
