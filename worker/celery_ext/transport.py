"""Owns how Celery speaks with Redis: `REDIS_URL` in the terms of kombu and Celery's backend, and
acknowledgements that no job waits for.

They write sentinels and sockets in another way than redis-py, and take TLS as a dictionary (Flower,
too, looks for it there). The same URL must mean the same server to gateway and workers.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any
from urllib.parse import quote

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from pydantic import SecretStr

from shared.redis_access.client import sentinel_options
from shared.redis_access.url import RedisAddress, parse
from worker.celery_ext.undeliverable import keep, text_of

SOCKET_SECONDS = 3.0
"""Of the broker connection. A server that is cut off closes nothing: without this a command waits
on it for ever, and with it the worker's event loop and the leases of the jobs that run."""

ACK_SECONDS = 0.05
"""How long an acknowledgement waits for a message to go with."""


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Tells Redis which message is done together with which one came next.

    Kombu waits for Redis twice between a job and the one after it, for each with a client made for
    the purpose, while a pool process is idle. If the worker dies before Redis is told, the message
    comes again after the visibility timeout, and is dropped then: its job has ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._acked: list[str] = []
        self._client: Any = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Work goes on while Redis is full, since that is what makes room. A message of which
        Redis keeps no copy is sent again if it is lost, like any other (`heartbeat.lua`)."""
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
        else:  # one timer each: a consumer that reconnects clears those that wait
            hub.call_later(ACK_SECONDS, self._write_acks)

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        if self._client is None:
            self._client = self.channel._create_client()
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
        """Unless Redis is what went away: kombu would try for as long as that lasts, and a job
        whose message is lost is sent another one (`heartbeat.lua`)."""
        if self._delivered or self._acked:
            try:
                with self.pipe_or_acquire() as commands:
                    commands.zrem(self.unacked_index_key, "").execute()
            except self.channel.connection_errors:
                self._delivered.clear()
        super().restore_unacked_once(stderr)


class _Robust:
    """What both kinds of channel do better than kombu's."""

    QoS = QoS

    def close(self) -> None:
        _end_poll(self)
        super().close()  # type: ignore[misc]

    def _brpop_read(self, **options: Any) -> Any:
        client: Any = self.client  # type: ignore[attr-defined]
        parse, replies = client.parse_response, []

        def remember(*args: Any, **kwargs: Any) -> Any:
            replies.append(parse(*args, **kwargs))
            return replies[-1]

        client.parse_response = remember
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:  # no JSON: kombu has nothing to hand over
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
        """Without this, a message that lacks what kombu or Celery look for ends the worker."""
        try:
            super()._deliver(message, queue)  # type: ignore[misc]
        except (redis.RedisError, OSError):
            raise
        except Exception as error:
            properties = message.get("properties") if isinstance(message, dict) else None
            tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
            for channel in self.channels:  # type: ignore[attr-defined]
                if isinstance(tag, str) and tag in channel.qos._delivered:
                    channel.qos.ack(tag)
            keep(text_of(message), f"it cannot be read: {error!r}")


_CONNECTION_ERRORS = (*kombu_redis.Transport.connection_errors, redis.OutOfMemoryError)
"""What Celery's worker survives, by connecting again. It ends itself over anything else."""


class Transport(_RobustTransport, kombu_redis.Transport):  # type: ignore[misc]
    Channel = Channel
    connection_errors = _CONNECTION_ERRORS


class SentinelChannel(_Robust, kombu_redis.SentinelChannel):  # type: ignore[misc]
    pass


class SentinelTransport(_RobustTransport, kombu_redis.SentinelTransport):  # type: ignore[misc]
    Channel = SentinelChannel
    connection_errors = _CONNECTION_ERRORS


def _end_poll(channel: Any) -> None:
    """Read what the channel has asked for, if Redis is there to give it.

    Kombu gives up closing if it is not. When Celery closes a second time, the channel has lost
    its way to Redis and says so with an error that ends the worker
    (https://github.com/celery/kombu/issues/582).
    """
    if channel._in_poll:
        with suppress(Empty, *channel.connection_errors):
            channel._brpop_read()


_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def broker_settings(url: SecretStr, transport_options: dict[str, Any]) -> dict[str, Any]:
    """Celery's settings for broker and result backend."""
    address = parse(url.get_secret_value())
    celery_url = _celery_url(address)
    transport = {"socket_connect_timeout": SOCKET_SECONDS, "socket_timeout": SOCKET_SECONDS}
    where: dict[str, Any] = {}
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
    if address.service:
        TRANSPORT_ALIASES["sentinel"] = f"{__name__}:{SentinelTransport.__name__}"
        where = {"master_name": address.service, "sentinel_kwargs": sentinel_options(address)}
    settings: dict[str, Any] = {
        "broker_url": celery_url,
        "result_backend": celery_url,
        "broker_transport_options": {**transport, **transport_options, **where},
        "result_backend_transport_options": where,
    }
    if address.tls is not None:
        tls = {**address.tls, "ssl_cert_reqs": _VERIFY[address.tls["ssl_cert_reqs"]]}
        settings |= {"broker_use_ssl": tls, "redis_backend_use_ssl": tls}
    return settings


def _celery_url(address: RedisAddress) -> str:
    login = ""
    if address.login:
        user, password = (
            quote(address.login.get(name, ""), safe="") for name in ("username", "password")
        )
        login = f"{user}:{password}@"
    if address.path:
        return f"redis+socket://{login}{address.path}?virtual_host={address.db}"
    scheme = "sentinel" if address.service else "redis" if address.tls is None else "rediss"
    # Kombu goes on to the next of several URLs when one fails, so each stands for itself.
    return ";".join(
        f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{port}/{address.db}"
        for host, port in address.nodes
    )
