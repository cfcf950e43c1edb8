"""Acts on SIGTERM and SIGINT before uvicorn begins to wait for the requests under way."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def on_stop_signal(action: Callable[[], None]) -> Iterator[None]:
    """On SIGTERM or SIGINT, call `action` in the event loop, then the previous handler.

    With it, requests that wait for a job can end early. Otherwise they would delay the shutdown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        if callable(before[number]):
            before[number](number, frame)

    for name in (signal.SIGTERM, signal.SIGINT):
        before[name] = signal.signal(name, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
