"""Compares what is in Redis with the model, and with the promises of the table of keys.

Every function returns what is wrong, in words; nothing if all is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from shared.job.keys import Keys, result_key
from tests.proofs.model import Job, Model
from tests.proofs.timeline import State

PERMANENT = {"stats", "marks", "workers", "workers-seen"}
"""Keys, without the queue's name, that a service has whatever has gone through it."""

Q = "yolo"


def differences(model: Model, state: State) -> list[str]:
    """Everything that is checked after every call."""
    return [
        *_jobs(model, state),
        *_places(model, state),
        *_totals(model, state),
        *_uploads(model, state),
        *_dead_letters(model, state),
        *_webhooks(model, state),
        *_lifetimes(model, state),
    ]


def _unequal(what: str, there: Any, expected: Any) -> Iterator[str]:
    if there != expected:
        yield f"{what}: {there!r} in Redis, {expected!r} expected"


def _jobs(model: Model, state: State) -> Iterator[str]:
    """Records and event streams: a job has the model's state, and has had the model's states."""
    records = _suffixes(state, "job:")
    expected = {task_id for task_id in model.jobs if model.record(task_id)}
    yield from _unequal("jobs", records, expected)
    for task_id in records & expected:
        job, record = model.jobs[task_id], state.value(f"{Q}:job:{task_id}")
        there = tuple(record[name] for name in ("state", "attempts", "owner", "model", "lane"))
        expected = (job.state, str(job.attempts), job.owner, job.model, job.lane)
        yield from _unequal(f"job {task_id}", there, expected)
        if job.parts:
            yield from _unequal(f"open parts of {task_id}", record["open"], str(job.open))
        elif job.state == "processing":
            yield from _unequal(f"worker of {task_id}", record["worker"], job.worker)
        yield from _unequal(f"end of {task_id}", int(record.get("finished_ms", 0)), job.ended)
        events = [event["status"] for event in state.value(f"{Q}:events:{task_id}", [])]
        yield from _unequal(f"events of {task_id}", events, model.events(job))
        result = state.keys.get(result_key(task_id))
        yield from _unequal(
            f"result of {task_id}", bool(result), job.state in ("completed", "failed")
        )


def _places(model: Model, state: State) -> Iterator[str]:
    """Each queued job in one lane, each running one under one lease, no other anywhere."""
    lanes = {lane: list(state.value(f"{Q}:lane:{lane}", {})) for lane in model.lanes}
    yield from _unequal("lanes", lanes, model.lanes)
    heavy = {lane: list(state.value(f"{Q}:heavy:{lane}", {})) for lane in model.lanes}
    parts = {lane: [i for i in ids if model.jobs[i].is_part] for lane, ids in model.lanes.items()}
    yield from _unequal("parts in lanes", heavy, parts)
    yield from _unequal("leases", state.value(f"{Q}:leases", {}), model.leases)
    for job in model.jobs.values():
        if not job.deleted and not job.parts:
            places = sum(lane.count(job.id) for lane in lanes.values()) + (job.id in model.leases)
            yield from _unequal(f"places of {job.id} ({job.state})", places, int(job.live))


def _totals(model: Model, state: State) -> Iterator[str]:
    """What is counted equals what can be counted."""
    stats = state.value(f"{Q}:stats", {})
    yield from _unequal("queued_bytes", int(stats.get("queued_bytes", 0)), model.queued_bytes())
    dead = sum(letter.bytes for letter in model.dead.values())
    yield from _unequal("dead_bytes", int(stats.get("dead_bytes", 0)), dead)
    clients = {
        name: value
        for (which, owner), (number, lane) in model.clients.items()
        for name, value in (
            (f"{which}|{owner}|jobs", str(number)),
            (f"{which}|{owner}|lane", lane),
        )
    }
    yield from _unequal("clients", state.value(f"{Q}:clients", {}), clients)
    owed = {id_: f"{model.jobs[id_].bytes} {model.jobs[id_].owner}" for id_ in model.queued()}
    yield from _unequal("owed", state.value(f"{Q}:owed", {}), owed)
    yield from _unequal("models", set(state.value(f"{Q}:models", {})), set(model.models))
    for name in model.models:
        its_stats = state.value(f"{Q}:model:{name}", {})
        its_bytes = int(its_stats.get("queued_bytes", 0))
        yield from _unequal(f"queued_bytes of {name}", its_bytes, model.queued_bytes(name))
    for name, number in model.counts.items():
        yield from _unequal(f"counter {name}", int(stats.get(name, 0)), number)


def _uploads(model: Model, state: State) -> Iterator[str]:
    expected = {task_id for task_id in model.images if model.has_image(task_id)}
    yield from _unequal("uploads", _suffixes(state, "image:"), expected)


def _dead_letters(model: Model, state: State) -> Iterator[str]:
    there = set(state.value(f"{Q}:dead", {}))
    yield from _unequal("dead letters", there, set(model.dead))
    sizes = {name: str(letter.bytes) for name, letter in model.dead.items()}
    yield from _unequal("sizes of dead letters", state.value(f"{Q}:dead-bytes", {}), sizes)
    unexpired = {name for name, letter in model.dead.items() if model.kept(letter)}
    yield from _unequal("records of dead letters", _suffixes(state, "dead:"), unexpired)
    if strays := _suffixes(state, "dead-image:") - unexpired:
        yield f"images of dead letters that are gone: {strays}"


def _webhooks(model: Model, state: State) -> Iterator[str]:
    there = _suffixes(state, "webhook:")
    expected = {task_id for task_id in model.webhooks if model.webhook(task_id)}
    yield from _unequal("webhooks", there, expected)
    due = state.value(f"{Q}:webhooks", {})
    for task_id in expected:
        if task_id not in due:
            yield f"the webhook of {task_id} is never due"


def _lifetimes(model: Model, state: State) -> Iterator[str]:
    """Every key has a time to live, or something that will delete it."""
    keys = Keys(Q)
    owned = {f"{Q}:{name}" for name in PERMANENT}
    if model.models:
        owned |= {f"{Q}:models", *(f"{Q}:model:{name}" for name in model.models)}
        owned |= {queue for name in model.models for queue in keys.lane_queues(name)}
    if model.queued():
        owned |= {f"{Q}:{what}:{lane}" for what in ("lane", "heavy") for lane in model.lanes}
        owned |= {f"{Q}:clients", f"{Q}:owed"}
    if model.leases:
        owned.add(f"{Q}:leases")
    if model.webhooks:
        owned.add(f"{Q}:webhooks")
    if model.dead:
        owned |= {f"{Q}:dead", f"{Q}:dead-bytes"}
    if any(job.parts and job.live for job in model.jobs.values()):
        owned.add(f"{Q}:in-parts")
    owned |= {keys.job(job.id) for job in model.jobs.values() if job.live}
    for name, key in state.keys.items():
        if key.ttl_ms is None and name not in owned:
            yield f"{name} lives for ever"
    for job in model.jobs.values():
        record = state.keys.get(keys.job(job.id))
        if record and job.live and record.ttl_ms is not None:
            yield f"the record of {job.id} expires although it is {job.state}"
        if record and not job.live:
            left = job.ended + model.result_ttl_ms - model.now
            yield from _unequal(f"time to live of {job.id}", record.ttl_ms, left)


def positions(model: Model, positions: dict[str, int]) -> Iterator[str]:
    """Positions as clients see them: those of the model, and increasing in each lane."""
    yield from _unequal("positions", positions, {i: model.position(i) for i in positions})
    for lane in model.lanes.values():
        shown = [positions[task_id] for task_id in lane if task_id in positions]
        if any(later <= earlier for earlier, later in pairwise(shown)):
            yield f"positions do not increase: {shown}"


def unfinished(model: Model) -> list[Job]:
    return [job for job in model.jobs.values() if job.live and not job.deleted]


def _suffixes(state: State, prefix: str) -> set[str]:
    """What follows the prefix in the names of keys."""
    start = f"{Q}:{prefix}"
    return {name.removeprefix(start) for name in state.keys if name.startswith(start)}
