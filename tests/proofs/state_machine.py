"""Random histories of a whole service, compared call by call with the model.

There are several gateways and workers, since nothing says who makes the next call: a commit may
come late or twice, a message or a record may be gone, and the clock may jump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.job.keys import job_of
from tests.proofs.drain import beat, drain, nothing_left
from tests.proofs.model import MODELS, Request
from tests.proofs.simulation import Simulation, all_lanes
from tests.proofs.timeline import Timeline

T = TypeVar("T")

OWNERS = st.sampled_from(["ann", "bob", "cy"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
SERVED = {"w1": MODELS, "w2": MODELS[:1], "w3": MODELS[1:]}
"""The models of each worker."""
NAMES = st.sampled_from(MODELS)
REQUESTS = st.builds(
    Request,
    id=st.just(""),
    bytes=st.sampled_from([1, 5, 20]),
    params=st.sampled_from(['{"conf":0.25}', '{"conf":0.5}']),
    pixels=st.sampled_from([0, 8, 30]),
    webhook=st.booleans(),
    parts=st.sampled_from([1, 1, 2, 3]),
)
STEPS_MS = st.sampled_from([1, 500, 2000, 6500, 10_001, 31_000, 121_000])
JUMPS_MS = st.sampled_from([-60_000, -1000, 3_600_000])
STEPS = 50
DRAIN_MS = 600_000
"""The clock may have been set back by minutes just before, and leases end on that clock."""


class ServiceMachine(RuleBasedStateMachine):
    timeline: Timeline
    """Set by whoever runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(self.timeline)
        self.ids: list[str] = []
        self.held: list[str] = []
        """Messages that workers have taken and not claimed."""
        self.attempts: list[tuple[str, int]] = []
        """All that ever began. Nobody tells a worker that it has lost one."""
        self.told: set[tuple[str, int]] = set()
        """Those that are the last part of their job."""
        self.hooks: list[tuple[str, int]] = []
        self.advice: list[tuple[str, int]] = []
        """What heartbeats said is lost (id, attempt) or has no message (id, 0)."""

    # -- gateways -------------------------------------------------------------------------------

    @rule(
        owner=OWNERS,
        model=NAMES,
        requests=st.lists(REQUESTS, min_size=1, max_size=3),
        adopt=st.booleans(),
        stored=st.sampled_from([True, True, True, False]),
    )
    def submit(
        self, owner: str, model: str, requests: list[Request], adopt: bool, stored: bool
    ) -> None:
        requests = requests[:1] if adopt else requests
        self._submit(owner, requests, model=model, adopt=adopt, stored=stored)

    @rule(
        owner=OWNERS,
        model=NAMES,
        request=REQUESTS,
        number=st.integers(0, 1),
        fingerprint=st.integers(0, 1),
    )
    def submit_with_a_key(
        self, owner: str, model: str, request: Request, number: int, fingerprint: int
    ) -> None:
        self._submit(
            owner, [request], model=model, key=f"{owner}:{number}", fingerprint=str(fingerprint)
        )

    def _submit(
        self,
        owner: str,
        requests: list[Request],
        *,
        model: str,
        adopt: bool = False,
        stored: bool = True,
        key: str = "",
        fingerprint: str = "",
    ) -> None:
        simulation = self.simulation
        requests = [replace(r, id=f"job{len(self.ids) + n}") for n, r in enumerate(requests)]
        ids = [request.id for request in requests]
        self.ids += ids
        for task_id in ids if stored else ids[1:]:
            simulation.store_image(task_id)
        how: dict[str, Any] = {"model": model, "adopt": adopt}
        how |= {"key": key, "fingerprint": fingerprint}
        status = simulation.accept(owner, requests, **how)
        if status == "accepted" and adopt:
            self.held.append(ids[0])
        self.repeat = owner, requests, how

    repeat: tuple[str, list[Request], dict[str, Any]] | None = None

    @precondition(lambda self: self.repeat)
    @rule()
    def repeat_the_last_submit(self) -> None:
        """Its answer was lost; the uploads are stored again, too."""
        assert self.repeat
        owner, requests, how = self.repeat
        known = any(self.simulation.model.record(request.id) for request in requests)
        if known or all(request.id not in self.simulation.model.jobs for request in requests):
            self.simulation.accept(owner, requests, **how)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.simulation.cancel(self._one(data, self.ids))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.simulation.read(self._one(data, self.ids))
        self.simulation.queue()

    @rule()
    def sweep(self) -> None:
        self.simulation.sweep()

    @rule()
    def recount(self) -> None:
        self.simulation.recount()

    # -- workers --------------------------------------------------------------------------------

    @precondition(lambda self: self._lanes())
    @rule(data=st.data())
    def take_message(self, data: st.DataObject) -> None:
        self.held.append(self.simulation.take_message(self._one(data, self._lanes())))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), worker=WORKERS)
    def claim(self, data: st.DataObject, worker: str) -> None:
        task_id = self._one(data, self.held)
        self.held.remove(task_id)
        if attempt := self.simulation.claim(task_id, worker, SERVED[worker]):
            self.attempts.append((task_id, attempt))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), worker=WORKERS, wanted=st.integers(1, 3), ready=st.integers(0, 2))
    def claim_more(self, data: st.DataObject, worker: str, wanted: int, ready: int) -> None:
        task_id, attempt = self._one(data, self.attempts)
        if ready:
            self.simulation.heartbeat(worker, [], ready=ready, models=SERVED[worker])
        for taken in self.simulation.claim_more(task_id, attempt, worker, wanted):
            self.attempts.append((taken, 1))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        """A part is delivered before; it finishes the job if it is told that it is the last."""
        task_id, attempt = self._one(data, self.attempts)
        is_part = task_id != job_of(task_id)
        told = is_part and (task_id, attempt) in self.told
        if is_part and not failed and not told:
            if self.simulation.deliver(task_id, attempt) == "last":
                self.told.add((task_id, attempt))
        else:
            self.simulation.finish(task_id, attempt, failed=failed)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), by_worker=st.booleans(), worker=WORKERS)
    def abandon(self, data: st.DataObject, by_worker: bool, worker: str) -> None:
        task_id, attempt = self._one(data, self.attempts)
        if by_worker:
            self.simulation.abandon(task_id, "worker_lost", worker=worker)
        else:
            self.simulation.abandon(task_id, "timeout", attempt=attempt)

    @rule(data=st.data(), worker=WORKERS)
    def heartbeat(self, data: st.DataObject, worker: str) -> None:
        known = sorted({task_id for task_id, _ in self.attempts})
        running = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        lost, vanished = self.simulation.heartbeat(worker, running, models=SERVED[worker])
        self.advice += lost + [(task_id, 0) for task_id in vanished]

    @precondition(lambda self: self.advice)
    @rule(data=st.data())
    def follow_advice(self, data: st.DataObject) -> None:
        """Perhaps late: others may have acted since."""
        task_id, attempt = self._one(data, self.advice)
        if attempt:
            self.simulation.abandon(task_id, "worker_lost", attempt=attempt)
        else:
            self.simulation.republish(task_id)

    @rule(worker=WORKERS)
    def leave(self, worker: str) -> None:
        self.simulation.leave(worker)

    # -- dead letters and webhooks --------------------------------------------------------------

    @rule(size=st.integers(1, 12))
    def bury_message(self, size: int) -> None:
        self.simulation.bury_message("x" * size)

    @precondition(lambda self: self.simulation.model.dead)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        self.simulation.purge([self._one(data, sorted(self.simulation.model.dead)), "unknown"])

    @rule(
        full=st.lists(st.sampled_from(["room", "owner:ann", "host:bob.test"]), unique=True),
        freed=st.lists(st.sampled_from(["room", "owner:ann", "host:bob.test"]), unique=True),
    )
    def take_webhook(self, full: list[str], freed: list[str]) -> None:
        if taken := self.simulation.webhook_take(full=full, freed=freed):
            self.hooks.append(taken[:2])

    @precondition(lambda self: self.hooks)
    @rule(data=st.data(), step=st.sampled_from(["write", "retry", "settle"]))
    def go_on_with_webhook(self, data: st.DataObject, step: str) -> None:
        task_id, attempt = self._one(data, self.hooks)
        if step == "write":
            self.simulation.webhook_write(task_id, attempt)
        elif step == "retry":
            self.simulation.webhook_retry(task_id, attempt, pause_ms=5000)
        else:
            self.simulation.webhook_settle(task_id)

    # -- the world ------------------------------------------------------------------------------

    @rule(ms=STEPS_MS)
    def pass_time(self, ms: int) -> None:
        self.simulation.advance(ms)

    @rule(ms=JUMPS_MS)
    def jump(self, ms: int) -> None:
        self.simulation.jump(ms)

    @precondition(lambda self: self._lanes())
    @rule(data=st.data())
    def lose_message(self, data: st.DataObject) -> None:
        self.simulation.lose_message(self._one(data, self._lanes()))

    @precondition(lambda self: self.simulation.model.jobs)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self.simulation.deliver_again(self._one(data, sorted(self.simulation.model.jobs)))

    @precondition(lambda self: self.simulation.model.jobs)
    @rule(data=st.data())
    def delete_record(self, data: st.DataObject) -> None:
        self.simulation.delete_record(self._one(data, sorted(self.simulation.model.jobs)))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def delete_upload(self, data: st.DataObject) -> None:
        self.simulation.delete_image(self._one(data, self.ids))

    def teardown(self) -> None:
        """Whatever has happened, all jobs end, and nothing is left."""
        beat(self.simulation, "healthy")
        drain(self.simulation, within_ms=DRAIN_MS)
        nothing_left(self.simulation)

    def _lanes(self) -> list[str]:
        return [lane for lane in all_lanes() if self.simulation.messages(lane)]

    @staticmethod
    def _one(data: st.DataObject, options: Sequence[T]) -> T:
        return data.draw(st.sampled_from(options))


def run_random_histories(timeline: Timeline, examples: int, **options: Any) -> None:
    """Raises what the shortest history that fails raises. `options`: Hypothesis' settings."""

    class Machine(ServiceMachine):
        pass

    Machine.timeline = timeline
    chosen: dict[str, Any] = {
        "max_examples": examples,
        "stateful_step_count": STEPS,
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "phases": [Phase.generate, Phase.shrink],
    }
    run_state_machine_as_test(Machine, settings=settings(**(chosen | options)))
