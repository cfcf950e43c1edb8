"""Bodies that never come, come slowly, or are left unfinished, on a gateway of their own."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator

import httpx
import pytest

from tests.support.client import submit
from tests.support.images import encoded, noise
from tests.support.stack import Stack, wait_until

IMAGE = encoded(noise(40, 30), "PNG")
LARGE = encoded(noise(700, 500), "PNG")
LIMIT = 4 * len(LARGE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("bodies"),
        API_KEYS="alice,bob",
        MAX_GATEWAY_UPLOAD_BYTES=str(LIMIT),
        MAX_CLIENT_UPLOAD_BYTES=str(LIMIT // 2),
    ) as stack:
        yield stack.start(workers=0)


@pytest.fixture
def alice(gateway: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": "alice"}, timeout=30) as client:
        yield client


@pytest.fixture
def bob(gateway: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": "bob"}, timeout=30) as client:
        yield client


def send(stack: Stack, text: str, body: bytes = b"") -> socket.socket:
    """A request as bytes, on a socket that is left open."""
    connection = socket.create_connection(("127.0.0.1", stack.port))
    connection.settimeout(60)
    connection.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return connection


def silent(
    stack: Stack, path: str, length: str, kind: str = "multipart/form-data; boundary=b"
) -> socket.socket:
    return send(
        stack,
        f"POST {path} HTTP/1.1\nHost: x\nX-API-Key: alice\n{length}\nContent-Type: {kind}",
    )


def held_bytes(client: httpx.Client) -> int:
    text = client.get("/metrics").text
    found = re.search(r"^yolo_queue_gateway_upload_bytes (\S+)", text, re.MULTILINE)
    assert found
    return int(float(found.group(1)))


def test_silent_bodies_time_out_and_block_nobody(
    gateway: Stack, alice: httpx.Client, bob: httpx.Client
) -> None:
    announced = f"Content-Length: {LIMIT // 2}"
    connections = [silent(gateway, "/predict/batch", "Transfer-Encoding: chunked")]
    connections += [silent(gateway, "/predict/batch", announced) for _ in range(8)]
    connections += [silent(gateway, "/predict/", "Transfer-Encoding: chunked") for _ in range(8)]
    for client in (alice, bob):
        assert client.post("/predict/", files={"file": LARGE}).status_code == 201
    for connection in connections:
        answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))  # it is closed, too
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code": "upload_too_slow"' in answer
        connection.close()
    assert held_bytes(alice) == 0


def test_a_dripping_body_is_cut_off(gateway: Stack, alice: httpx.Client) -> None:
    answer = b""
    with silent(gateway, "/predict/", "Content-Length: 100000", "image/png") as connection:
        connection.settimeout(0.2)
        for _ in range(200):
            try:
                answer += connection.recv(65536)
                break
            except TimeoutError:
                connection.sendall(b"x")
    assert answer.startswith(b"HTTP/1.1 408")


def test_one_client_cannot_take_all_of_the_memory(
    gateway: Stack, alice: httpx.Client, bob: httpx.Client
) -> None:
    started = [
        send(
            gateway,
            f"POST /predict/ HTTP/1.1\nHost: x\nX-API-Key: alice\nContent-Type: image/png\n"
            f"Content-Length: {len(LARGE)}",
            LARGE[:-1],
        )
        for _ in range(2)
    ]
    wait_until(lambda: held_bytes(bob) >= 2 * len(LARGE) - 2, seconds=5, what="both have come")
    refused = alice.post("/predict/", files={"file": LARGE})
    assert refused.status_code == 503
    assert refused.json()["code"] == "gateway_busy"
    assert refused.headers["retry-after"] == "1"
    assert bob.post("/predict/", files={"file": LARGE}).status_code == 201
    for connection in started:
        connection.sendall(LARGE[-1:])
        assert connection.recv(100).startswith(b"HTTP/1.1 201")
        connection.close()
    assert held_bytes(bob) == 0


def test_a_batch_that_is_too_large_is_told_the_limit(alice: httpx.Client) -> None:
    files = [("files", LARGE)] * 3
    answer = alice.post("/predict/batch", files=files)
    assert answer.status_code == 413
    assert f"all images of a request {LIMIT // 2:,}" in answer.json()["detail"]


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("path", ["/predict/", "/predict/batch"])
@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=b"])
def test_a_client_that_leaves_is_no_error(
    gateway: Stack, alice: httpx.Client, how: str, path: str, kind: str
) -> None:
    errors = gateway.logs().count("Traceback")
    before = left(alice, path)
    connection = send(
        gateway,
        f"POST {path} HTTP/1.1\nHost: x\nX-API-Key: alice\nContent-Type: {kind}\n"
        "Content-Length: 100000",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + bytes(1000),
    )
    if kind == "image/png" and path == "/predict/batch":
        with connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 415")
        return
    wait_until(lambda: held_bytes(alice) > 0, seconds=5, what="the first bytes have come")
    if how == "RST":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_until(lambda: held_bytes(alice) == 0, seconds=5, what="its memory is free")
    assert left(alice, path) == before + 1
    assert gateway.logs().count("Traceback") == errors
    assert 'status="500"' not in alice.get("/metrics").text


def left(client: httpx.Client, path: str) -> int:
    text = client.get("/metrics").text
    found = re.search(rf'requests_total{{method="POST",route="{path}",status="499"}} (\S+)', text)
    return int(float(found.group(1))) if found else 0


def test_a_waiter_that_leaves_is_no_error(gateway: Stack, alice: httpx.Client) -> None:
    link = submit(alice, IMAGE)["links"]["self"]
    for path in (f"{link}?wait=60", f"{link}/events"):
        request = f"GET {path} HTTP/1.1\nHost: x\nX-API-Key: alice"
        connection = send(gateway, request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert alice.get("/health").status_code == 200
    assert "Traceback" not in gateway.logs()
