"""Limits the bytes of uploads in the gateway's memory: in total, and for each owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import GatewayBusy


class UploadBudget:
    """Counts bytes as they arrive. Bytes that a request has only announced do not count, or a few
    silent connections could keep everybody out."""

    def __init__(self, limit_bytes: int, owner_limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._owner_limit_bytes = owner_limit_bytes
        self._held_by: Counter[str] = Counter()

    @contextmanager
    def allocate(self, owner: str, announced_bytes: int) -> Iterator[Allocation]:
        """An empty allocation for one upload; what it has grown to is given back at the end.

        Raises `GatewayBusy` if the announced bytes would not fit now, before the body is sent.
        """
        self._check(owner, announced_bytes)
        allocation = Allocation(self, owner)
        try:
            yield allocation
        finally:
            self._add(owner, -allocation.size_bytes)
            if not self._held_by[owner]:
                del self._held_by[owner]

    def _check(self, owner: str, more_bytes: int) -> None:
        if self.held_bytes + more_bytes > self.limit_bytes:
            reason = "The gateway has too many uploads in progress"
        elif self._held_by[owner] + more_bytes > self._owner_limit_bytes:
            reason = "You have too many uploads in progress"
        else:
            return
        raise GatewayBusy(f"{reason}; try again shortly.", retry_after_seconds=1)

    def _add(self, owner: str, more_bytes: int) -> None:
        self.held_bytes += more_bytes
        self._held_by[owner] += more_bytes


class Allocation:
    """The part of the budget that one upload takes."""

    def __init__(self, budget: UploadBudget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self.size_bytes = 0

    def grow(self, more_bytes: int) -> None:
        """Take more of the budget. Raises `GatewayBusy`."""
        self._budget._check(self._owner, more_bytes)
        self._budget._add(self._owner, more_bytes)
        self.size_bytes += more_bytes
