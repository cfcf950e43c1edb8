"""Every interleaving of a small service, as deep as a few seconds allow; deeper: `make prove`."""

from __future__ import annotations

from pathlib import Path

from tests.proofs.explore import BOUNDS, explore
from tests.proofs.server import proof_server, small


def test_every_interleaving_is_one_that_the_model_has(tmp_path: Path) -> None:
    with proof_server(tmp_path, small(**BOUNDS)) as timeline:
        for findings in explore(timeline, depth=4, drain_every=20):
            assert not findings.wrong, findings.wrong[0]
    assert findings.states > 900, "the exploration has lost most of its turns"
