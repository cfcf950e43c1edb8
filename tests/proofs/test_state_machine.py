"""Random histories of a whole service, on the real scripts, against the model."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.proofs.state_machine import ServiceMachine
from tests.proofs.timeline import Timeline


def test_the_scripts_do_what_the_model_does(timeline: Timeline) -> None:
    class Machine(ServiceMachine):
        pass

    Machine.timeline = timeline
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
