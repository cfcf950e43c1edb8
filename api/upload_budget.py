"""Bounds the bytes of uploads in the gateway's memory, over all clients and for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import GatewayBusy


class UploadBudget:
    """Counts bytes as they arrive. What a request announces and does not send takes nothing, or a
    few silent connections could keep everybody out."""

    def __init__(self, limit_bytes: int, client_limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._client_limit_bytes = client_limit_bytes
        self._held_by: Counter[str] = Counter()

    @contextmanager
    def hold(self, client: str, announced_bytes: int) -> Iterator[Holding]:
        """What a request of this client takes, until it is answered.

        Raises `GatewayBusy` if there is no room at this moment for what it announces, so that a
        body is not sent in vain.
        """
        self._check(client, announced_bytes)
        holding = Holding(self, client)
        try:
            yield holding
        finally:
            self.held_bytes -= holding.size_bytes
            self._held_by[client] -= holding.size_bytes
            if not self._held_by[client]:
                del self._held_by[client]

    def _check(self, client: str, more_bytes: int) -> None:
        if self.held_bytes + more_bytes > self.limit_bytes:
            whose = "Too many uploads"
        elif self._held_by[client] + more_bytes > self._client_limit_bytes:
            whose = "Too many uploads of yours"
        else:
            return
        raise GatewayBusy(f"{whose} at this moment; try again shortly.", retry_after_seconds=1)


class Holding:
    """The part of the budget that one request has taken."""

    def __init__(self, budget: UploadBudget, client: str) -> None:
        self._budget = budget
        self._client = client
        self.size_bytes = 0

    def add(self, more_bytes: int) -> None:
        """Take more. Raises `GatewayBusy`."""
        self._budget._check(self._client, more_bytes)
        self._budget.held_bytes += more_bytes
        self._budget._held_by[self._client] += more_bytes
        self.size_bytes += more_bytes
