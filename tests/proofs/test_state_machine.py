"""Random histories of a whole service, on the real scripts, against the model."""

from __future__ import annotations

from tests.proofs.server import small
from tests.proofs.state_machine import run_random_histories
from tests.proofs.timeline import Timeline


def test_the_scripts_do_what_the_model_does(proof_port: int) -> None:
    with Timeline(proof_port, small()) as timeline:
        run_random_histories(timeline, examples=150)
