"""Which bytes belong to which request, and the options of accepted sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from api.connection_limiter import ConnectionLimiter
from api.http_protocol import TCP_OPTIONS, LimitedHttpProtocol, protocol_for
from api.open_files import ConnectionLimits


def new_limiter() -> ConnectionLimiter:
    return ConnectionLimiter(ConnectionLimits(4, 2, 100_000, "MAX_CONNECTIONS"))


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str, default: object = None) -> None:
        return None


def test_the_rest_of_a_body_that_was_answered_early_is_no_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})
        answered.set()

    answered = asyncio.Event()

    async def talk() -> None:
        limiter, transport = new_limiter(), FakeTransport()
        wire = protocol_for(limiter)(Config(app, log_config=None), ServerState(), {})
        wire.connection_made(transport)  # type: ignore[arg-type]
        assert wire.state is limiter.reading_head
        wire.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        assert wire.state is None
        await answered.wait()
        answered.clear()
        assert wire.state is limiter.unread_body
        wire.data_received(b"x" * 200_000)
        assert wire.state is limiter.unread_body
        wire.data_received(b"x" * 100_000 + b"GET / HTTP/1.1\r\nHost: x\r\nx-y: ")
        assert wire.state is limiter.reading_head
        wire.data_received(b"y" * 60_000 + b"\r\n\r\n")
        assert wire.state is None
        await answered.wait()
        assert wire.state is limiter.idle
        assert transport.written.count(b"HTTP/1.1 ") == 2
        wire.data_received(b"GET / HTTP/1.1\r\n")
        wire.data_received(b"x-y: " + b"y" * 70_000)
        assert b"HTTP/1.1 431 " in transport.written
        assert wire.state is limiter.closing
        wire.connection_lost(None)
        assert limiter.open_connections == 0

    asyncio.run(talk())


def test_an_accepted_socket_notices_a_client_that_vanished() -> None:
    """Keepalive finds one that is quiet, TCP_USER_TIMEOUT one that is being written to."""

    async def no_app(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    async def accept() -> None:
        config = Config(no_app, log_config=None)
        made: list[LimitedHttpProtocol] = []

        class Protocol(protocol_for(new_limiter())):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                made.append(self)
                connected.set()

        connected = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.wait_for(connected.wait(), 10)
        accepted = made[0].transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for level, option, value in TCP_OPTIONS:
            if level == socket.IPPROTO_TCP:
                assert accepted.getsockopt(level, option) == value
        writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(accept())
