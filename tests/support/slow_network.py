"""Puts a slow network in front of a server: a TCP proxy that delays all bytes by half a round trip.

It is a process of its own, so that whoever measures through it does not share its event loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.support.stack import free_port

START_SECONDS = 20


class SlowNetwork:
    """`with SlowNetwork(port, round_trip_ms=20) as network`: connect to `network.port` instead.

    Each direction is a pipe as long as half the round trip: chunks keep their order and do not wait
    for each other, so the bandwidth stays that of loopback.
    """

    def __init__(self, target_port: int, *, round_trip_ms: float = 0) -> None:
        self.port = free_port()
        # Fork would copy the caller's threads' locks and event loop.
        context = multiprocessing.get_context("spawn")
        self._round_trip = context.Value(ctypes.c_double, round_trip_ms / 1000)
        self._turns = context.Value(ctypes.c_ulonglong, 0)
        self._listening = context.Event()
        self._process = context.Process(
            target=_serve,
            args=(self.port, target_port, self._round_trip, self._turns, self._listening),
            name="slow network",
            daemon=True,
        )

    def __enter__(self) -> SlowNetwork:
        self._process.start()
        assert self._listening.wait(START_SECONDS), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def url(self) -> str:
        """Database 0 of the Redis behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def set_round_trip(self, milliseconds: float) -> None:
        """For what arrives from now on, on open connections too."""
        self._round_trip.value = milliseconds / 1000

    @property
    def turns(self) -> int:
        """How often a client has begun to send after the server had answered: the round trips of
        all connections together."""
        return int(self._turns.value)


class _DelayLine:
    """One direction of a connection: what is put in is delivered `delay` seconds later, in
    order."""

    def __init__(self, delay: Callable[[], float], deliver: Callable[[bytes | None], None]) -> None:
        self._delay, self._deliver = delay, deliver
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes | None]] = deque()

    def put(self, data: bytes | None) -> None:
        """None: the end of the stream."""
        delay = self._delay()
        if delay == 0 and not self._waiting:
            self._deliver(data)
            return
        self._waiting.append((self._loop.time() + delay, data))
        if len(self._waiting) == 1:
            self._wait()

    def _wait(self) -> None:
        self._loop.call_at(self._waiting[0][0], self._deliver_due)

    def _deliver_due(self) -> None:
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            self._deliver(self._waiting.popleft()[1])
        if self._waiting:
            self._wait()


class _End(asyncio.Protocol):
    """One of the two sockets of a proxied connection. What it receives goes down `line`."""

    transport: asyncio.Transport
    line: _DelayLine
    peer: _End

    def __init__(self, on_data: Callable[[], None]) -> None:
        self._on_data = on_data
        self._ended = False
        """Whether it has passed on the end of the other's stream."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._on_data()
        self.line.put(data)

    def eof_received(self) -> bool:
        self.line.put(None)
        return True  # half-closed: the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            _reset(self.peer.transport)

    def deliver(self, data: bytes | None) -> None:
        """Send what has come down the other end's line."""
        if self.transport.is_closing():
            return
        if data is not None:
            self.transport.write(data)
            return
        self._ended = True
        if self.peer._ended:
            self.transport.close()
            self.peer.transport.close()
        else:
            self.transport.write_eof()

    # Backpressure: while one end cannot send, the other one does not read.

    def pause_writing(self) -> None:
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        self.peer.transport.resume_reading()


class _ClientEnd(_End):
    """The client's side: connects to the target, and links both ends."""

    def __init__(self, target_port: int, round_trip: Any, turns: Any) -> None:
        super().__init__(self._count_turn)
        self._target_port, self._round_trip, self._turns = target_port, round_trip, turns
        self._answered = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        await asyncio.sleep(self._round_trip.value)  # the handshake
        loop = asyncio.get_running_loop()
        try:
            _, server = await loop.create_connection(
                lambda: _End(self._note_answer), "127.0.0.1", self._target_port
            )
        except OSError:
            _reset(self.transport)
            return
        self.peer, server.peer = server, self
        self.line = _DelayLine(self._half, server.deliver)
        server.line = _DelayLine(self._half, self.deliver)
        if self.transport.is_closing():
            _reset(server.transport)
        else:
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "peer"):
            super().connection_lost(error)

    def _half(self) -> float:
        return float(self._round_trip.value) / 2

    def _count_turn(self) -> None:
        if self._answered:
            self._answered = False
            self._turns.value += 1  # this process alone writes it

    def _note_answer(self) -> None:
        self._answered = True


def _reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, as a reset at the other end or a refused connection."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _serve(port: int, target_port: int, round_trip: Any, turns: Any, listening: Any) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _ClientEnd(target_port, round_trip, turns), "127.0.0.1", port
        )
        listening.set()
        await server.serve_forever()

    asyncio.run(serve())
