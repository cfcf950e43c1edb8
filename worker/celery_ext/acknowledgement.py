"""What a worker tells Redis about the messages that it holds: as little as it can, since the next
job waits for each of those round trips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from shared.job.message import is_about_a_record

ACK_SECONDS = 0.05
"""How long an acknowledgement waits for another message to travel with."""


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Keeps no copy in Redis of a message whose job has a record there.

    Kombu by itself writes a copy of each message before it is run and deletes it afterwards. That
    is two round trips of the parent, which does them for all of its processes: with 20 ms to Redis
    a worker took 18 jobs a second at most. If a worker dies with such a message, the job's record
    remains: heartbeat.lua sends a new message.

    An inline task has no record until a pool process makes one, so its message is copied. Its
    acknowledgement goes in the round trip of the next copy, or after 50 ms.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acked: list[str] = []
        self._client: Any = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message. If Redis is full, an inline task runs all the same: a job that
        ends frees memory."""
        if is_about_a_record(message.headers):
            virtual.QoS.append(self, message, delivery_tag)
            return
        try:
            super().append(message, delivery_tag)
        except redis.OutOfMemoryError:
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        if self._has_no_copy(delivery_tag):
            return
        self._acked.append(delivery_tag)
        hub = get_event_loop()
        if hub is None:
            self._write_acks()
        else:  # a timer each: a consumer that reconnects clears the timers that wait
            hub.call_later(ACK_SECONDS, self._write_acks)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Give a message back to its queue, as the one that is taken next: it was, before."""
        if not self._has_no_copy(tag):
            super().restore_by_tag(tag, client, leftmost=False)
            return
        message = self._delivered[tag]
        where = (message.delivery_info.get(name, "") for name in ("exchange", "routing_key"))
        with self.channel.conn_or_acquire(client) as connected:
            pipe = connected.pipeline()
            self.channel._do_restore_message(message._raw, *where, pipe, leftmost=False)
            pipe.execute()

    def _has_no_copy(self, delivery_tag: str) -> bool:
        message = self._delivered.get(delivery_tag)
        return message is not None and is_about_a_record(message.headers)

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
