"""Every interleaving of a small service, as deep as a few seconds allow; deeper: `make prove`."""

from __future__ import annotations

from tests.proofs.explore import explore


def test_every_interleaving_is_one_that_the_model_has(proof_port: int) -> None:
    for findings in explore([proof_port], depth=4, drain_every=20):
        assert not findings.wrong, findings.wrong[0]
    assert findings.states > 900, "the exploration has lost most of its turns"
