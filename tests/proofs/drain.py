"""Whatever has happened before: one healthy worker and a gateway end every job."""

from __future__ import annotations

from shared.job.keys import HEARTBEAT_SECONDS, job_of
from tests.proofs.differences import PERMANENT, Q, unfinished
from tests.proofs.model import MODEL_TTL_MS
from tests.proofs.simulation import Simulation, Wrong, all_lanes

HEARTBEAT_MS = int(HEARTBEAT_SECONDS * 1000)
WEEK_MS = 7 * 86_400_000


def drain(simulation: Simulation, *, within_ms: int) -> int:
    """Returns after how many milliseconds the last job had ended. Raises `Wrong` if one has not
    within `within_ms`."""
    began = simulation.now
    while unfinished(simulation.model):
        if simulation.now - began > within_ms:
            left = [f"{job.id} is {job.state}" for job in unfinished(simulation.model)]
            raise Wrong(f"after {within_ms / 1000:.0f} s with a healthy worker: {left}")
        simulation.advance(HEARTBEAT_MS)
        beat(simulation, "healthy")
        work(simulation, "healthy")
        simulation.sweep()
    took = simulation.now - began
    work(simulation, "healthy")  # leftover messages
    return took


def beat(simulation: Simulation, worker: str) -> None:
    """A heartbeat of an idle worker, with what it leads to."""
    lost, vanished = simulation.heartbeat(worker, [])
    for task_id, attempt in lost:
        simulation.abandon(task_id, "worker_lost", attempt=attempt)
    for task_id in vanished:
        simulation.republish(task_id)


def work(simulation: Simulation, worker: str) -> None:
    """Take every message, and do what there is to do."""
    for lane in all_lanes():
        while simulation.messages(lane):
            task_id = simulation.take_message(lane)
            if attempt := simulation.claim(task_id, worker):
                complete(simulation, task_id, attempt)


def complete(simulation: Simulation, task_id: str, attempt: int) -> None:
    """Commit a result, unless it is a part's and other parts are missing."""
    is_part = task_id != job_of(task_id)
    if not is_part or simulation.deliver(task_id, attempt) == "last":
        simulation.finish(task_id, attempt)


def nothing_left(simulation: Simulation) -> None:
    """After `drain`: send the webhooks, purge the dead letters, and let all times to live pass."""
    while taken := simulation.webhook_take():
        simulation.webhook_settle(taken[0])
        simulation.advance(1)
    simulation.advance(WEEK_MS)
    while simulation.webhook_take():  # it may have been held or parked
        pass
    for _ in range(2 * simulation.model.lease_ms // HEARTBEAT_MS):  # leases of deleted jobs
        simulation.advance(HEARTBEAT_MS)
        beat(simulation, "healthy")
    simulation.sweep()  # jobs in parts that were deleted
    simulation.leave("healthy")
    simulation.advance(MODEL_TTL_MS)  # now that nobody serves them
    simulation.recount()
    simulation.purge(list(simulation.model.dead))
    left = set(simulation.state.keys) - {f"{Q}:{name}" for name in PERMANENT}
    if left:
        raise Wrong(f"left although everything is over: {sorted(left)}")
