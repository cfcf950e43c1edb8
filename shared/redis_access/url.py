"""Reads Redis URLs: one form for gateway, workers, command line and Flower.

| form | what it reaches |
| --- | --- |
| `redis://[user:password@]host[:6379][/db]` | one server |
| `rediss://...` | the same by TLS |
| `unix://[user:password@]/path/of/socket[?db=0]` | one server on this machine |
| `sentinel://[user:password@]host[:26379],host2,.../name[/db]` | the primary that Sentinel names |
| `sentinels://...` | the same by TLS, to the sentinels and to the servers |

Queries: for TLS `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`,
`ssl_check_hostname`; for Sentinel `sentinel_username`, `sentinel_password`, where the sentinels
themselves require one. Special characters in a user name or password are percent-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

SENTINEL_PORT = 26379
REDIS_PORT = 6379
_SENTINEL = {"sentinel": "redis", "sentinels": "rediss"}
_FORMS = "redis://, rediss://, unix://, sentinel:// or sentinels://"
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of a URL.

    `nodes`: the server, or all sentinels, as (host, port); empty for a socket, which has a `path`.
    `service`: what Sentinel calls the group of servers; empty without Sentinel.
    `login`: `username` and `password` of the servers; `sentinel_login`: of the sentinels.
    `tls`: redis-py's `ssl_...` options, None without TLS.
    """

    nodes: tuple[tuple[str, int], ...]
    path: str
    service: str
    db: int
    login: dict[str, str]
    sentinel_login: dict[str, str]
    tls: dict[str, Any] | None


def parse(url: str) -> RedisAddress:
    """Raises ValueError; its message contains no password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix", *_SENTINEL):
        raise ValueError(f"a Redis URL begins with {_FORMS}")
    if scheme in _SENTINEL:
        return _parse_sentinel(_SENTINEL[scheme], rest)
    options = _options(url)
    nodes: tuple[tuple[str, int], ...] = ()
    if scheme != "unix":
        nodes = ((options.get("host", "localhost"), options.get("port", REDIS_PORT)),)
    elif not options.get("path"):
        raise ValueError("a unix:// URL needs the path of the socket")
    return _address(options, scheme, nodes=nodes, path=options.get("path", ""))


def masked(url: str) -> str:
    """The URL without its passwords, for messages and logs."""
    scheme, separator, rest = url.partition("://")
    credentials, at, where = rest.rpartition("@")
    where = re.sub(r"(password=)[^&]*", r"\1***", where)
    return f"{scheme}{separator}{'***@' if at and credentials else ''}{where}"


def _parse_sentinel(scheme: str, rest: str) -> RedisAddress:
    rest, _, query = rest.partition("?")
    login, at, where = rest.rpartition("@")
    hosts, _, path = where.partition("/")
    service, _, db = path.partition("/")
    nodes = tuple(_node(host) for host in hosts.split(","))
    if not service or service.isdecimal():
        raise ValueError(
            "a Sentinel URL names the group of servers: sentinel://host,host2/mymaster/0"
        )
    if db and not db.isdecimal():
        raise ValueError("a Sentinel URL ends in /name or /name/number-of-the-database")
    pairs = parse_qsl(query, keep_blank_values=True)
    prefix = "sentinel_"
    sentinel_login = {
        name.removeprefix(prefix): value
        for name, value in pairs
        if name in ("sentinel_username", "sentinel_password")
    }
    others = urlencode([pair for pair in pairs if not pair[0].startswith(prefix)])
    # The rest means the same as in the URL of a single server.
    options = _options(f"{scheme}://{login}{at}redis/{db or 0}?{others}")
    return _address(options, scheme, nodes=nodes, service=service, sentinel_login=sentinel_login)


def _node(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or SENTINEL_PORT
    except ValueError:
        host, port = None, 0
    if not host:
        raise ValueError("a Sentinel URL lists its sentinels as host:port,host:port")
    return host, port


def _options(url: str) -> dict[str, Any]:
    from redis import ConnectionPool

    try:
        return dict(ConnectionPool.from_url(url).connection_kwargs)
    except ValueError as error:
        # urllib's message for a bad port quotes the text, which may be half a password.
        if "port" in str(error).lower():
            raise ValueError(
                "the port is not a number from 0 to 65535; a password's `/`, `#`, `?` or `@` must "
                "be percent-encoded"
            ) from None
        raise


def _address(
    options: dict[str, Any],
    scheme: str,
    *,
    nodes: tuple[tuple[str, int], ...],
    path: str = "",
    service: str = "",
    sentinel_login: dict[str, str] | None = None,
) -> RedisAddress:
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if tls and scheme != "rediss":
        raise ValueError(f"{min(tls)} is for TLS: use rediss:// or sentinels://")
    if tls.setdefault("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise ValueError("ssl_cert_reqs is `required` (the default), `optional` or `none`")
    for name in _TLS_FILES:
        # Found later, it would look like a server that does not answer.
        if name in tls and not Path(tls[name]).is_file():
            raise ValueError(f"{name}={tls[name]} is not a file")
    return RedisAddress(
        nodes=nodes,
        path=path,
        service=service,
        db=options.get("db", 0),
        login={name: options[name] for name in ("username", "password") if name in options},
        sentinel_login=sentinel_login or {},
        tls=tls if scheme == "rediss" else None,
    )
