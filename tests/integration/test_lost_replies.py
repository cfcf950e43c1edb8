"""If a reply of Redis is lost, the gateway asks again and learns what it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from pydantic import SecretStr

from shared.job.gateway_store import GatewayStore
from shared.job.record import JobState
from shared.redis_access.url import parse
from shared.settings import Settings
from tests.support.jobs import job

pytestmark = pytest.mark.anyio


class LossyProxy:
    """Passes everything on to Redis. Once `lose_next_reply` is set, it closes the connection on
    which the next reply comes, instead of passing that on."""

    def __init__(self, host: str, port: int) -> None:
        self.lose_next_reply = False
        self.lost = 0
        self._redis = host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(*self._redis)
        # Each direction ends when its sender closes; closing both ends the other one.
        ways = [
            asyncio.create_task(self._pass(reader, to_redis)),
            asyncio.create_task(self._pass(from_redis, writer, may_lose=True)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, to_redis):
            one.close()
        await asyncio.gather(*ways)
        for one in (writer, to_redis):
            with suppress(OSError):
                await one.wait_closed()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, may_lose: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                if may_lose and self.lose_next_reply:
                    self.lose_next_reply, self.lost = False, self.lost + 1
                    return
                target.write(data)


@asynccontextmanager
async def lossy_gateway(settings: Settings) -> AsyncIterator[tuple[GatewayStore, LossyProxy]]:
    """A gateway's store whose Redis is behind a proxy."""
    proxy = LossyProxy(*parse(settings.redis_url.get_secret_value()).nodes[0])
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(proxy.serve(reader, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        gateway = GatewayStore(settings.model_copy(update={"redis_url": SecretStr(address)}))
        try:
            yield gateway, proxy
        finally:
            await gateway.close()
            await asyncio.gather(*serving)


async def test_a_cancel_whose_reply_is_lost_has_cancelled(settings: Settings) -> None:
    async with lossy_gateway(settings) as (gateway, proxy):
        other, record = [(await gateway.accept(job()))[0] for _ in range(2)]
        await gateway.cancel(other)  # Redis knows the script now
        proxy.lose_next_reply = True
        record, cancelled = await gateway.cancel(record)
        assert (record.state, cancelled, proxy.lost) == (JobState.CANCELLED, True, 1)
        assert not (await gateway.cancel(record))[1], "another request did not do it"


async def test_an_accepted_job_whose_reply_is_lost_is_new(settings: Settings) -> None:
    async with lossy_gateway(settings) as (gateway, proxy):
        await gateway.accept(job())  # Redis knows the script now
        proxy.lose_next_reply = True
        record, is_new = await gateway.accept(job(idempotency_key="a:k", fingerprint="f"))
        assert (record.state, is_new, proxy.lost) == (JobState.QUEUED, True, 1)
        assert (await gateway.queue()).depth == 2
