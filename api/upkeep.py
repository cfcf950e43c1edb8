"""Keeps the queue right from the gateway's side, also while no worker is there: ends jobs that have
waited too long, and checks the totals."""

from __future__ import annotations

import asyncio
import logging

from shared.errors import StoreUnavailable
from shared.job.gateway_store import GatewayStore

log = logging.getLogger("yolo_queue.api")

SWEEP_SECONDS = 1.0
RECOUNT_SECONDS = 60.0


async def keep_queue(store: GatewayStore) -> None:
    """Never returns."""
    while True:
        more = False
        try:
            more = await store.sweep()
            if corrected := await store.recount(RECOUNT_SECONDS):
                log.warning("the queue's totals were wrong; corrected: %s", ", ".join(corrected))
        except StoreUnavailable as error:
            log.debug("no upkeep: %s", error)
        await asyncio.sleep(0 if more else SWEEP_SECONDS)
