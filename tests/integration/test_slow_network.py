"""The proxy that stands in for a slow network delays, and does nothing else."""

from __future__ import annotations

import hashlib
import random
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.support.slow_network import SlowNetwork
from tests.support.stack import wait_until
from yolo_queue.server.embedded_redis import EmbeddedRedis

ROUND_TRIP_MS = 20
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def network(redis_server: EmbeddedRedis) -> Iterator[SlowNetwork]:
    with SlowNetwork(redis_server.port, round_trip_ms=ROUND_TRIP_MS) as network:
        yield network


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def ping_ms(client: redis.Redis) -> float:
    begin = time.perf_counter()
    assert client.ping()
    return (time.perf_counter() - begin) * 1000


def test_a_round_trip_takes_the_delay(network: SlowNetwork) -> None:
    with redis.Redis(port=network.port) as client:
        times = [ping_ms(client) for _ in range(20)]
        assert min(times) >= ROUND_TRIP_MS
        assert statistics.median(times) < ROUND_TRIP_MS + 5, times
        network.set_round_trip(0)
        assert statistics.median(ping_ms(client) for _ in range(20)) < 5
        network.set_round_trip(ROUND_TRIP_MS)


def test_what_is_under_way_together_waits_once(network: SlowNetwork) -> None:
    """200 commands sent without waiting take one round trip, and so do 8 MB each way."""
    with redis.Redis(port=network.port) as client:
        client.ping()  # to connect takes round trips, too
        pipe = client.pipeline(transaction=False)
        for number in range(200):
            pipe.echo(str(number))
        turns, begin = network.turns, time.perf_counter()
        assert pipe.execute() == [str(number).encode() for number in range(200)]
        assert time.perf_counter() - begin < 3 * ROUND_TRIP_MS / 1000
        assert network.turns - turns == 1

        value = random.Random(1).randbytes(8 * MEGABYTE)
        begin = time.perf_counter()
        client.set("large", value)
        assert client.get("large") == value
        assert time.perf_counter() - begin < 2.0
        client.delete("large")


def test_bytes_are_unchanged_under_load(network: SlowNetwork) -> None:
    def echo_many(seed: int) -> None:
        source = random.Random(seed)
        with redis.Redis(port=network.port) as client:
            for _ in range(10):
                sent = [source.randbytes(source.randrange(1, 100_000)) for _ in range(10)]
                pipe = client.pipeline(transaction=False)
                for data in sent:
                    pipe.echo(data)
                assert pipe.execute() == sent

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(echo_many, seed) for seed in range(8)]:
            done.result()


def test_half_a_connection_can_end(listener: socket.socket) -> None:
    """A client that says it has no more to send still gets the answer, and both sides end."""
    data = random.Random(2).randbytes(4 * MEGABYTE)

    def answer_with_digest() -> None:
        connection, _ = listener.accept()
        with connection:
            digest = hashlib.sha256()
            while chunk := connection.recv(65536):
                digest.update(chunk)
            connection.sendall(digest.digest())

    server = threading.Thread(target=answer_with_digest)
    server.start()
    with (
        SlowNetwork(listener.getsockname()[1], round_trip_ms=10) as network,
        socket.create_connection(("127.0.0.1", network.port), timeout=10) as client,
    ):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))
        assert received == hashlib.sha256(data).digest()
    server.join(10)
    assert not server.is_alive()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_is_passed_on(listener: socket.socket, side: str) -> None:
    with (
        SlowNetwork(listener.getsockname()[1], round_trip_ms=10) as network,
        socket.create_connection(("127.0.0.1", network.port), timeout=10) as client,
    ):
        client.sendall(b"x")
        server, _ = listener.accept()
        server.settimeout(10)
        with server:
            assert server.recv(1) == b"x"
            reset, other = (client, server) if side == "client" else (server, client)
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.close()
            with pytest.raises(ConnectionResetError):
                other.recv(1)


def test_a_server_that_is_away_refuses(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with (
        SlowNetwork(port) as network,
        redis.Redis(port=network.port) as client,
        pytest.raises(redis.ConnectionError),
    ):
        client.ping()


def test_connections_cut_at_the_server_are_cut_for_the_client(
    redis_server: EmbeddedRedis, network: SlowNetwork
) -> None:
    with redis.Redis(port=network.port) as client, redis.Redis(port=redis_server.port) as admin:
        client.ping()
        connection = client.connection_pool.get_connection()
        admin.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: is_cut(connection), seconds=5, what="the client sees the end")
        client.connection_pool.release(connection)
        assert client.ping()


def is_cut(connection: redis.Connection) -> bool:
    try:
        connection.can_read(timeout=0)
    except redis.ConnectionError:
        return True
    return False
