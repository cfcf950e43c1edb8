"""kombu's Redis transport, hardened: no unreadable message and no lost server ends the worker. It
weighs the messages, too, for fair_share.py."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty
from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from worker.celery_ext.acknowledgement import QoS
from worker.celery_ext.undeliverable import keep, text_of


class _Robust:
    """What both kinds of channel add to kombu's: they survive unreadable messages and lost
    servers."""

    QoS = QoS

    def close(self) -> None:
        end_poll(self)
        super().close()  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        client: Any = self.client  # type: ignore[attr-defined]
        parse, replies = client.parse_response, []

        def remember(*args: Any, **kwargs: Any) -> Any:
            replies.append(parse(*args, **kwargs))
            if replies[-1]:
                self._queue_cycle.weigh(replies[-1][1])  # type: ignore[attr-defined]
            return replies[-1]

        client.parse_response = remember
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:  # not JSON: kombu has no message to deliver
            if not replies or not replies[-1]:
                raise
            keep(replies[-1][1].decode(errors="replace"), f"it is not JSON: {error}")
            return True
        finally:
            del client.parse_response


class Channel(_Robust, kombu_redis.Channel):  # type: ignore[misc]
    pass


class _RobustTransport:
    def _deliver(self, message: Any, queue: str) -> None:
        """Deliver a message, or drop it if kombu cannot read it; otherwise it would end the
        worker."""
        try:
            super()._deliver(message, queue)  # type: ignore[misc]
        except (redis.RedisError, OSError):
            raise
        except Exception as error:
            properties = message.get("properties") if isinstance(message, dict) else None
            tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
            channels = self.channels if isinstance(tag, str) else ()  # type: ignore[attr-defined]
            for channel in channels:
                with suppress(KeyError):
                    channel.qos.get(tag)
                    channel.qos.ack(tag)
            keep(text_of(message), f"it cannot be read: {error!r}")


_CONNECTION_ERRORS = (*kombu_redis.Transport.connection_errors, redis.OutOfMemoryError)
"""Errors after which Celery's worker connects again. Any other error ends it."""


class Transport(_RobustTransport, kombu_redis.Transport):  # type: ignore[misc]
    Channel = Channel
    connection_errors = _CONNECTION_ERRORS


class SentinelChannel(_Robust, kombu_redis.SentinelChannel):  # type: ignore[misc]
    pass


class SentinelTransport(_RobustTransport, kombu_redis.SentinelTransport):  # type: ignore[misc]
    Channel = SentinelChannel
    connection_errors = _CONNECTION_ERRORS


def end_poll(channel: Any) -> None:
    """Read the answer that the channel still waits for, a second at most, if Redis can give it.

    If it cannot, kombu gives up closing. When Celery closes a second time, the channel has no
    connection any more and raises an error that ends the worker
    (https://github.com/celery/kombu/issues/582).
    """
    if channel._in_poll:
        with suppress(Empty, *channel.connection_errors):
            channel._brpop_read()
