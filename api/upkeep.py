"""Ends jobs that have waited too long and corrects the queue's totals, even if no worker runs."""

from __future__ import annotations

import asyncio
import logging

from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore

log = logging.getLogger("yolo_queue.api")

SWEEP_SECONDS = 1.0
RECOUNT_SECONDS = 60.0


async def keep_queue(store: GatewayStore) -> None:
    """Sweep every second and recount every minute. Never returns."""
    while True:
        more = False
        try:
            more = await store.sweep()
            if corrected := await store.recount(RECOUNT_SECONDS):
                log.warning(
                    "the queue's totals were wrong; corrected: %s",
                    ", ".join(corrected),
                )
        except StoreUnavailable as error:
            log.debug("upkeep skipped: %s", error)
        await asyncio.sleep(0 if more else SWEEP_SECONDS)
