"""Translates `REDIS_URL` into Celery's settings for broker and result backend.

Celery and kombu write sentinels and sockets in another way than redis-py, and take TLS as a
dictionary (Flower looks for it there, too). The same URL must mean the same server to gateway and
workers.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import quote

from kombu.transport import TRANSPORT_ALIASES
from pydantic import SecretStr

from shared.redis_access.client import sentinel_options
from shared.redis_access.url import RedisAddress, parse
from worker.celery_ext.transport import SentinelTransport, Transport

SOCKET_SECONDS = 3.0
"""Timeout of the broker connection. A host that was cut off closes no connection: without a
timeout, a command would wait for ever, and with it the worker's event loop and the leases of
running jobs."""

_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def broker_settings(url: SecretStr, transport_options: dict[str, Any]) -> dict[str, Any]:
    """Celery's settings for broker and result backend."""
    address = parse(url.get_secret_value())
    celery_url = _celery_url(address)
    transport = {"socket_connect_timeout": SOCKET_SECONDS, "socket_timeout": SOCKET_SECONDS}
    where: dict[str, Any] = {}
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{Transport.__module__}:{Transport.__name__}"
    if address.service:
        name = SentinelTransport.__name__
        TRANSPORT_ALIASES["sentinel"] = f"{SentinelTransport.__module__}:{name}"
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
