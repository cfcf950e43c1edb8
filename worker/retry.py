"""Owns what a pool process does while Redis is away: wait for it, rather than lose its work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import redis

from shared.redis_access.client import UNAVAILABLE

log = logging.getLogger("yolo_queue.worker")
T = TypeVar("T")

PAUSE_SECONDS = 0.5


def with_patience(action: Callable[[], T]) -> T:
    """Do `action`, again and again while Redis does not answer or has no memory left.

    Every action of a `WorkerStore` is safe to repeat: a second one does nothing.
    The task's time limit bounds the wait.
    """
    complained = False
    while True:
        try:
            return action()
        except (*UNAVAILABLE, redis.OutOfMemoryError) as error:
            if not complained:
                log.warning("Redis does not take this (%s); waiting for it", error)
                complained = True
            time.sleep(PAUSE_SECONDS)
