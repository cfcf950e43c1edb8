"""Heads that never come, never end or come too early, against a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.support.stack import Stack, wait_until
from tests.support.wire import Wire, ended, queued_job


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("heads")) as stack:
        yield stack.start(workers=0)


def test_only_heads_have_a_deadline(gateway: Stack) -> None:
    """Silent and half-sent requests are ended; those that wait for the gateway are not."""
    task_id = queued_job(gateway)
    with ExitStack() as all_wires:

        def open_wire() -> Wire:
            return all_wires.enter_context(Wire(gateway))

        silent = [open_wire() for _ in range(30)]
        newlines = open_wire()
        half_sent = [open_wire() for _ in range(5)]
        for wire in half_sent:
            wire.send("GET /health HTTP/1.1\r\nHost: gat")
        second_half_sent = open_wire()
        second_half_sent.ask("/health")
        assert second_half_sent.answer().status_code == 200
        second_half_sent.send("GET /he")
        asking, stream, held = (open_wire() for _ in range(3))
        stream.ask(f"/result/{task_id}/events")
        held.ask(f"/result/{task_id}?wait=20")

        def all_ended() -> bool:
            asking.ask("/health")
            assert asking.answer().status_code == 200
            with suppress(ConnectionError):
                newlines.send("\r\n")  # which is not yet a head
            return all(wire.closed() for wire in (*silent, newlines))

        wait_until(all_ended, seconds=45, what="silent connections are closed")
        for wire in (*half_sent, second_half_sent):
            wire.refusal(408, "request_timeout")
        assert held.answer().status_code == 200
        assert not stream.closed()
    assert ended(gateway, "head_timeout") == len(silent) + len(half_sent) + 2


@pytest.mark.parametrize("line", ["x-{}: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", "y"])
def test_a_head_without_an_end_is_refused(gateway: Stack, line: str) -> None:
    block = "".join(line.format(number) for number in range(100))
    with Wire(gateway) as wire:
        wire.send("GET /health HTTP/1.1\r\nHost: gateway\r\nx-y: y")
        sent = 0
        while not wire.has_answer():
            wire.send(block)
            sent += len(block)
            assert sent < 50_000_000
        wire.refusal(431, "head_too_large")
        wait_until(wire.closed, seconds=20, what="the connection is closed")


def test_a_whole_head_may_have_64_kib(gateway: Stack) -> None:
    with Wire(gateway) as wire:
        wire.ask("/health", "x-y: " + "y" * 60_000)
        assert wire.answer().status_code == 200
        wire.ask("/health", "x-y: " + "y" * 70_000)
        wire.refusal(431, "head_too_large")
        wait_until(wire.closed, seconds=20, what="the connection is closed")


def test_pipelined_requests_are_bounded(gateway: Stack) -> None:
    """Each is held in memory until its turn: 18 MB of requests took 1.1 GB."""
    request = "GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"
    with Wire(gateway) as wire:
        wire.send(request * 20)
        for _ in range(20):
            assert wire.answer().status_code == 200
    with Wire(gateway) as wire:
        wire.send(request * 1000)
        received = b""
        with suppress(ConnectionError):
            while more := wire.socket.recv(65536):
                received += more
    assert received.count(b"HTTP/1.1 200") < 100


def test_a_websocket_is_refused_with_problem_json(gateway: Stack) -> None:
    with Wire(gateway) as wire:
        wire.ask(
            "/result/1/events",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        wire.refusal(400, "bad_request")
