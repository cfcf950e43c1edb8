"""One server without a file for all proofs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proofs.server import proof_server, small
from tests.proofs.timeline import Timeline


@pytest.fixture(scope="session")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    with proof_server(tmp_path_factory.mktemp("proofs"), small()) as timeline:
        yield timeline
