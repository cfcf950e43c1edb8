"""A small service whose every turn can be listed: a gateway, two workers, two jobs, one of them in
two parts, and bad luck.

A turn is one call of a script, or time that passes. What a worker knows is here and not in Redis,
so that it can die between any two calls, or go on with a job that it has lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from shared.job.keys import HEARTBEAT_SECONDS, job_of, lanes_of, part_of
from tests.proofs.model import MODELS, Request
from tests.proofs.simulation import Simulation

HEARTBEAT_MS = int(HEARTBEAT_SECONDS * 1000)

Turn = tuple[str, ...]
"""What happens, and to whom: `("claim", "w1")`."""

JOBS = {"a": "ann", "b": "bob"}
"""Ids and owners: two clients, so two lanes."""
PARTS = {"a": 1, "b": 2}

LANES = lanes_of(MODELS[0])


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker knows. It runs one job at a time."""

    message: str = ""
    """The job of the message that it has taken and not claimed."""
    attempt: tuple[str, int] | None = None
    last: bool = False
    """Its attempt is at a part that was told that it is the last one of its job."""
    advice: tuple[tuple[str, int], ...] = ()
    """What its last heartbeat said is lost (id, attempt) or has no message (id, 0)."""


@dataclass(frozen=True, slots=True)
class World:
    simulation: Simulation
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    cancelled: frozenset[str] = frozenset()
    redelivered: frozenset[str] = frozenset()
    """Jobs whose message came twice."""
    waits: int = 0
    """How often time has passed."""

    def key(self) -> tuple[object, ...]:
        """Two worlds with the same key have the same future."""
        simulation = self.simulation
        knowledge = (self.workers, self.cancelled, self.redelivered, self.waits)
        return simulation.state.text, simulation.now - simulation.state.now_ms, *knowledge

    # -- what can happen next -------------------------------------------------------------------

    def turns(self) -> Iterator[Turn]:
        simulation = self.simulation
        submitted = [task_id for task_id in JOBS if task_id in simulation.model.jobs]
        for task_id, parts in PARTS.items():
            if task_id not in submitted:
                yield "submit", task_id
                continue
            if task_id not in self.cancelled:
                yield "cancel", task_id
            messages = [part_of(task_id, n) for n in range(parts)] if parts > 1 else [task_id]
            for message in messages:
                if message not in self.redelivered:
                    yield "deliver again", message
        for lane in LANES:
            if simulation.messages(lane):
                yield "lose message", lane
        if not submitted:
            return
        for number, worker in enumerate(self.workers):
            # The second worker is the first with another name, until the first has done something.
            if number == 0 or self.workers[0] != Worker() or self.waits:
                yield from self._turns_of(number, worker)
        if self.waits < 4:
            yield from (("wait", who) for who in ("nobody", "0", "1", "both"))
            yield "wait for long", "nobody"
            yield ("sweep",)

    def _turns_of(self, number: int, worker: Worker) -> Iterator[Turn]:
        name = str(number)
        if worker.message:
            yield "claim", name
        elif worker.attempt:
            is_part = job_of(worker.attempt[0]) != worker.attempt[0]
            yield ("complete" if worker.last or not is_part else "deliver"), name
            yield "fail", name
            yield "abandon", name
            yield "process dies", name
        else:
            for lane in LANES:
                if self.simulation.messages(lane):
                    yield "take", name, lane
        if worker != Worker():
            yield "crash", name
        if worker.advice:
            yield "follow advice", name

    # -- making it happen -----------------------------------------------------------------------

    def after(self, turn: Turn) -> World:
        """Raises `Wrong` if the scripts do not do what the model does."""
        world = replace(self, simulation=self.simulation.fork())
        simulation = world.simulation
        match turn:
            case "submit", task_id:
                simulation.store_image(task_id)
                request = Request(task_id, webhook=True, parts=PARTS[task_id])
                simulation.accept(JOBS[task_id], [request])
            case "cancel", task_id:
                world = replace(world, cancelled=self.cancelled | {task_id})
                simulation.cancel(task_id)
            case "deliver again", task_id:
                world = replace(world, redelivered=self.redelivered | {task_id})
                simulation.deliver_again(task_id)
            case "lose message", lane:
                simulation.lose_message(lane)
            case ("sweep",):
                world = replace(world, waits=self.waits + 1)
                simulation.sweep()
            case "wait" | "wait for long", who:
                return world._wait(who, for_long=turn[0] == "wait for long")
            case _:
                return world._worker_turn(turn)
        return world

    def _worker_turn(self, turn: Turn) -> World:
        kind, number = turn[0], int(turn[1])
        simulation, worker, name = self.simulation, self.workers[number], f"w{number}"
        match kind:
            case "take":
                worker = replace(worker, message=simulation.take_message(turn[2]))
            case "claim":
                task_id = worker.message
                attempt = simulation.claim(task_id, name)
                worker = replace(
                    worker, message="", attempt=(task_id, attempt) if attempt else None
                )
            case "deliver":
                assert worker.attempt
                last = simulation.deliver(*worker.attempt) == "last"
                worker = replace(worker, attempt=worker.attempt if last else None, last=last)
            case "complete" | "fail":
                assert worker.attempt
                simulation.finish(*worker.attempt, failed=kind == "fail")
                worker = replace(worker, attempt=None, last=False)
            case "abandon":  # its time limit
                assert worker.attempt
                task_id, attempt = worker.attempt
                simulation.abandon(task_id, "timeout", attempt=attempt)
                worker = replace(worker, attempt=None, last=False)
            case "process dies":  # its parent notices
                assert worker.attempt
                simulation.abandon(worker.attempt[0], "worker_lost", worker=name)
                worker = replace(worker, attempt=None, last=False)
            case "crash":
                worker = Worker()
            case "follow advice":
                (task_id, attempt), *advice = worker.advice
                if attempt:
                    simulation.abandon(task_id, "worker_lost", attempt=attempt)
                else:
                    simulation.republish(task_id)
                worker = replace(worker, advice=tuple(advice))
        return self._with(number, worker)

    def _wait(self, who: str, *, for_long: bool) -> World:
        """A lease's time passes, or the longest that a job may wait. Meanwhile these workers send
        their heartbeats; the others have stalled, or are cut off."""
        world = replace(self, waits=self.waits + 1)
        model = self.simulation.model
        if for_long:
            self.simulation.advance(model.max_queue_ms + 1)
            return world
        numbers = {"nobody": (), "0": (0,), "1": (1,), "both": (0, 1)}[who]
        for _ in range(model.lease_ms // HEARTBEAT_MS):
            self.simulation.advance(HEARTBEAT_MS)
            for number in numbers:
                worker = world.workers[number]
                running = [worker.attempt[0]] if worker.attempt else []
                lost, vanished = self.simulation.heartbeat(f"w{number}", running)
                advice = (*lost, *((task_id, 0) for task_id in vanished))
                if advice:
                    world = world._with(number, replace(worker, advice=advice))
        self.simulation.advance(1)
        return world

    def _with(self, number: int, worker: Worker) -> World:
        first, second = self.workers
        return replace(self, workers=(worker, second) if number == 0 else (first, worker))
