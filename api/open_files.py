"""Works out how many connections fit under the process' limit on open files."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass

from api import webhook_sender
from shared.errors import StartupError
from shared.redis_access import client as redis_client
from shared.settings import Settings

OTHER_FILES = 40
"""Listening sockets, the log, the event loop, DNS queries, traces."""
RESERVED_CONNECTIONS = 64
"""Connections above the limit: for health checks, and to answer other requests with 503."""
MIN_CONNECTIONS = 16
MACOS_OPEN_MAX = 10_240


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    connections: int
    reserve: int
    """Connections beyond `connections`, for health checks and for answering 503."""
    response_bytes: int
    """Bytes of responses that clients have not read yet, over all connections."""
    what_to_raise: str
    """For the operator: the setting or system limit that `connections` comes from."""


def raise_open_files_limit() -> int:
    """Raise this process' soft limit on open files to its hard limit. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS reports no hard limit, but refuses numbers above one that it does not report.
    for wanted in (hard, MACOS_OPEN_MAX):
        if soft < wanted != resource.RLIM_INFINITY:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return soft


def connection_limits(settings: Settings, open_files: int) -> ConnectionLimits:
    """The limits of a gateway that may have `open_files` files open.

    Raises `StartupError` if that leaves room for fewer than `MIN_CONNECTIONS` connections.
    """
    redis_pools = 1 + bool(settings.rate_limit)
    own = redis_pools * redis_client.MAX_CONNECTIONS + OTHER_FILES
    if settings.webhook_secret.get_secret_value():
        own += webhook_sender.MAX_SENDS
    room = open_files - own
    reserve = min(RESERVED_CONNECTIONS, room // 4)
    if room - reserve < MIN_CONNECTIONS:
        raise StartupError(
            f"The limit on open files ({open_files}) is too low to serve clients. Raise it to "
            "1,024 or more (`ulimit -n`, LimitNOFILE= of systemd, `--ulimit nofile=` of Docker)."
        )
    if settings.max_connections <= room - reserve:
        what_to_raise = "MAX_CONNECTIONS"
    else:
        what_to_raise = "the limit on open files (`ulimit -n`, LimitNOFILE=, `--ulimit nofile=`)"
    return ConnectionLimits(
        min(settings.max_connections, room - reserve),
        reserve,
        settings.max_gateway_response_bytes,
        what_to_raise,
    )
