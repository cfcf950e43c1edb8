"""What the proofs have found, each as the shortest history that showed it."""

from __future__ import annotations

from tests.proofs.model import Request
from tests.proofs.server import small
from tests.proofs.simulation import Simulation
from tests.proofs.timeline import Timeline


def test_a_repeated_batch_starts_nothing_again_although_its_first_job_is_gone(
    proof_port: int,
) -> None:
    with Timeline(proof_port, small()) as timeline:
        simulation = Simulation(timeline)
        batch = [Request("first"), Request("second")]
        for request in batch:
            simulation.store_image(request.id)
        assert simulation.accept("ann", batch) == "accepted"
        attempt = simulation.claim("second", "w1")
        simulation.delete_record("first")
        assert simulation.accept("ann", batch) == "accepted"
        assert simulation.read("second")["state"] == "processing"
        assert simulation.finish("second", attempt) == "committed"
