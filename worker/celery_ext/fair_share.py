"""The order in which a worker takes messages from the queues: an equal share of work for each.

kombu takes from queues in turn, a message each. But a part of a job with many tiles is the work of
several pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kombu.utils.scheduling import round_robin_cycle

from shared.tiling import PART_PASSES

_PART = re.compile(rb'"id": "[^"#]*#\d+"')
_LONG_MESSAGE = 8192
"""Bytes; a task that carries its image inline."""


class LeastServed(round_robin_cycle):  # type: ignore[misc]
    """The queue that has been given the least work comes first; of several, the one that had its
    turn longest ago. Start-time fair queueing: a queue that was empty saves nothing up.

    `items`: the queues in this order, as kombu's own orders have them.
    """

    def __init__(self, it: Iterable[str] | None = None) -> None:
        super().__init__(list(it or ()))
        self._served: dict[str, int] = {}
        """Work that was taken from each, by a clock that stands where the last one began."""
        self._clock = 0
        self._work = 1

    def weigh(self, message: bytes) -> None:
        """Note how much work the message is that comes next to `rotate`."""
        is_part = len(message) < _LONG_MESSAGE and _PART.search(message)
        self._work = PART_PASSES if is_part else 1

    def rotate(self, last_used: str) -> str:
        """A message was taken from this queue."""
        self._clock = max(self._clock, self._served.get(last_used, 0))
        self._served[last_used] = self._clock + self._work
        super().rotate(last_used)
        self.items.sort(key=lambda queue: max(self._clock, self._served.get(queue, 0)))
        return last_used
