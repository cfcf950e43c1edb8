"""One form of URL for every part: what is understood, what is refused, what is shown."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import redis.asyncio
from pydantic import SecretStr, ValidationError

from shared.redis_access.client import MAX_CONNECTIONS, BlockingSentinelPool, connect, connect_async
from shared.redis_access.url import masked, parse
from shared.settings import Settings
from worker.app import create_app

SENTINEL = "sentinel://user:p%2Fw%40@one,two:26380,[::1]:26381/mymaster/3"


def test_a_sentinel_url() -> None:
    address = parse(SENTINEL + "?sentinel_password=s%26x")
    assert address.nodes == (("one", 26379), ("two", 26380), ("::1", 26381))
    assert (address.service, address.db, address.tls) == ("mymaster", 3, None)
    assert address.login == {"username": "user", "password": "p/w@"}
    assert address.sentinel_login == {"password": "s&x"}


def test_tls_means_to_check_certificates() -> None:
    for url in ("rediss://host", "sentinels://host/mymaster"):
        assert parse(url).tls == {"ssl_cert_reqs": "required"}
    trusting = parse("rediss://host?ssl_cert_reqs=none&ssl_check_hostname=false")
    assert trusting.tls == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("host:6379", "begins with redis://"),
        ("redis+sentinel://host/mymaster", "begins with redis://"),
        ("redis://:half/secret@host", "percent-encoded"),
        ("unix://", "path of the socket"),
        ("sentinel://one,two", "names the group"),
        ("sentinel://one,two/0", "names the group"),
        ("sentinel://one,two/mymaster/zero", "number-of-the-database"),
        ("sentinel://one,,two/mymaster", "host:port,host:port"),
        ("sentinel://one:secret/mymaster", "host:port,host:port"),
        ("redis://host?ssl_ca_certs=/ca.pem", "is for TLS"),
        ("sentinel://one/mymaster?ssl_cert_reqs=none", "is for TLS"),
        ("rediss://host?ssl_cert_reqs=maybe", "`required`"),
        ("rediss://host?ssl_ca_certs=/nowhere/ca.pem", "is not a file"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=url)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://:secret@host:1/0", "redis://***@host:1/0"),
        ("rediss://me:sec@ret@host?ssl_cert_reqs=none", "rediss://***@host?ssl_cert_reqs=none"),
        ("unix://:secret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        (
            "sentinels://:secret@a,b/m/0?sentinel_password=secret&sentinel_username=me",
            "sentinels://***@a,b/m/0?sentinel_password=***&sentinel_username=me",
        ),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_celery_is_told_of_the_same_server(tmp_path: Path) -> None:
    app = create_app(Settings(redis_url=SENTINEL + "?sentinel_password=s%26x"))
    login = "sentinel://user:p%2Fw%40@"
    assert app.conf.broker_url == f"{login}one:26379/3;{login}two:26380/3;{login}[::1]:26381/3"
    assert app.conf.result_backend == app.conf.broker_url
    for options in (app.conf.broker_transport_options, app.conf.result_backend_transport_options):
        assert options["master_name"] == "mymaster"
        assert options["sentinel_kwargs"]["password"] == "s&x"
    assert app.conf.broker_transport_options["visibility_timeout"] >= 3600

    authority = tmp_path / "ca.pem"
    authority.touch()
    app = create_app(Settings(redis_url=f"rediss://:pw@host:1/2?ssl_ca_certs={authority}"))
    assert app.conf.broker_url == "rediss://:pw@host:1/2"
    tls = {"ssl_ca_certs": str(authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert app.conf.broker_use_ssl == app.conf.redis_backend_use_ssl == tls

    app = create_app(Settings(redis_url="unix://:pw@/run/redis.sock?db=2"))
    assert app.conf.broker_url == "redis+socket://:pw@/run/redis.sock?virtual_host=2"


def test_sentinel_clients_keep_the_bounds_of_the_others() -> None:
    client = connect(SecretStr(SENTINEL), timeout_seconds=1.5)
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 1.5
    assert client.connection_pool.connection_kwargs["db"] == 3

    async def bounded() -> None:
        pool = connect_async(SecretStr(SENTINEL)).connection_pool
        assert isinstance(pool, BlockingSentinelPool)
        assert isinstance(pool, redis.asyncio.BlockingConnectionPool)
        assert pool.max_connections == MAX_CONNECTIONS
        await pool.aclose()

    asyncio.run(bounded())
