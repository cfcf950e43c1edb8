"""Acknowledges messages in batches, so that the next job does not wait for Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

ACK_SECONDS = 0.05
"""How long an acknowledgement waits for another message to travel with."""


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Sends acknowledgements in the same round trip as the next delivery.

    Kombu by itself makes two more round trips between two jobs, each with a new client, while a
    pool process is idle. If the worker dies before Redis is told, the message is delivered
    again after the visibility timeout, and is dropped then: its job has ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acked: list[str] = []
        self._client: Any = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message. If Redis is full, the job runs all the same: a job that ends
        frees memory. If its message is lost, heartbeat.lua sends a new one."""
        try:
            super().append(message, delivery_tag)
        except redis.OutOfMemoryError:
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self._acked.append(delivery_tag)
        hub = get_event_loop()
        if hub is None:
            self._write_acks()
        else:  # a timer each: a consumer that reconnects clears the timers that wait
            hub.call_later(ACK_SECONDS, self._write_acks)

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        """Kombu's next commands, with the acknowledgements that wait in front of them."""
        if self._client is None:
            self._client = self.channel.Client(connection_pool=self.channel.pool)
        with super().pipe_or_acquire(pipe, client or self._client) as commands:
            if not self._acked or pipe is not None:
                yield commands
                return
            acked, self._acked = self._acked, []
            commands.zrem(self.unacked_index_key, *acked)
            commands.hdel(self.unacked_key, *acked)
            try:
                yield commands
            except redis.RedisError:
                self._acked += acked
                raise

    def _write_acks(self) -> None:
        if self._acked:
            with self.pipe_or_acquire() as commands:
                commands.execute()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give unacknowledged messages back at the end, unless Redis is unavailable: kombu would
        retry for as long as that lasts. A job whose message is lost is sent another one
        (heartbeat.lua)."""
        if self._delivered or self._acked:
            try:
                with self.pipe_or_acquire() as commands:
                    commands.zrem(self.unacked_index_key, "").execute()
            except self.channel.connection_errors:
                self._delivered.clear()
        super().restore_unacked_once(stderr)
