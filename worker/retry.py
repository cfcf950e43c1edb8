"""Repeats a visit to Redis until Redis is available: a pool process waits and keeps its work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from shared.redis_access.client import UNAVAILABLE

log = logging.getLogger("yolo_queue.worker")
T = TypeVar("T")

PAUSE_SECONDS = 0.5


def until_available(action: Callable[[], T]) -> T:
    """Call `action` again and again while Redis is away, full or refuses writes. It must be safe to
    repeat. The task's time limit bounds the wait."""
    warned = False
    while True:
        try:
            return action()
        except UNAVAILABLE as error:
            if not warned:
                log.warning("Redis is unavailable (%s); retrying", error)
                warned = True
            time.sleep(PAUSE_SECONDS)
