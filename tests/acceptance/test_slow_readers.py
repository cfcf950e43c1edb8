"""Clients that read their answers slowly or hardly at all, against a real gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.stack import Stack, wait_until
from tests.support.wire import Wire, ended, finished_job, gateway_metric, queued_job

PHONE_BYTES_PER_SECOND = 20 * 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("readers")) as stack:
        yield stack.start(workers=0)


def test_a_stalled_reader_is_cut_off_and_a_slow_one_is_not(gateway: Stack) -> None:
    path = f"/result/{finished_job(gateway, 750_000)}"
    quiet = f"/result/{queued_job(gateway)}"
    with ExitStack() as all_wires:
        crawlers = [all_wires.enter_context(Wire(gateway, receive_buffer=4096)) for _ in range(3)]
        phone, stream, held = (all_wires.enter_context(Wire(gateway)) for _ in range(3))
        for wire in (*crawlers, phone):
            wire.ask(path, "Connection: close")
        stream.ask(f"{quiet}/events")
        held.ask(f"{quiet}?wait=30")
        wait_until(
            lambda: gateway_metric(gateway, "response_bytes") > 2_000_000,
            seconds=20,
            what="answers wait in the gateway",
        )
        received = bytearray()
        begin = time.monotonic()

        def read_as_a_phone() -> None:
            while more := phone.socket.recv(2048):
                received.extend(more)
                ahead = len(received) / PHONE_BYTES_PER_SECOND - (time.monotonic() - begin)
                time.sleep(max(0, ahead))

        reading = threading.Thread(target=read_as_a_phone, daemon=True)
        reading.start()

        def crawl() -> bool:
            for wire in crawlers:
                with suppress(ConnectionError):
                    wire.socket.recv(1)
            return ended(gateway, "slow_reader") == len(crawlers)

        wait_until(crawl, seconds=60, what="slow readers are cut off")
        reading.join(timeout=100)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["status"] == "completed"
        assert held.answer().status_code == 200
        assert not stream.closed()
    assert ended(gateway, "slow_reader") == len(crawlers)
    assert gateway_metric(gateway, "response_bytes") == 0


def test_the_memory_held_for_slow_readers_is_bounded(tmp_path: Path) -> None:
    limit = 16 * 1024 * 1024
    with Stack(tmp_path, MAX_GATEWAY_RESPONSE_BYTES=str(limit)) as stack, ExitStack() as wires:
        stack.start(workers=0)
        path = f"/result/{finished_job(stack, 750_000)}"
        for _ in range(40):
            wires.enter_context(Wire(stack, receive_buffer=4096)).ask(path)
        wait_until(
            lambda: ended(stack, "response_memory") >= 10,
            seconds=30,
            what="the slowest are cut off",
        )
        assert gateway_metric(stack, "response_bytes") <= limit
        assert stack.log("api").read_text().count("MAX_GATEWAY_RESPONSE_BYTES") == 1
