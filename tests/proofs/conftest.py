"""One server for all proofs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proofs.server import proof_server


@pytest.fixture(scope="session")
def proof_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with proof_server(tmp_path_factory.mktemp("proofs")) as port:
        yield port
