"""Measures how long a submit takes while 32 clients keep the workers busy.

    python -m bench.submit_latency --weights yolov8n.pt

Beside the gateway run two endpoints (bench/bare_app.py). One only reads the upload. The other also
stores it in the same Redis before it answers, the least that a gateway which loses nothing can do.
A client sends the same photograph to all three in turn, while 32 others send, wait and send again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bench.report import percentile, save
from tests.support.http_load import Connection, post_form
from tests.support.images import photograph
from tests.support.stack import ROOT, Stack, answers, free_port, wait_until

CLIENTS = 32
SAMPLES = 400
PAUSE_SECONDS = 0.02
WAYS = ("read", "store", "submit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve())
    runs = [measure(weights) for _ in range(arguments.repeats)]
    lines = [
        f"Milliseconds for a photograph of {len(photograph()) / 1e6:.2f} MB, {CLIENTS} clients.",
        "",
        "In brackets: of the endpoint that only reads.",
        "",
        "| run | | only read | read and stored in Redis | submit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, run in enumerate(runs, 1):
        for percent in (50, 99):
            read, store, submit = (percentile(run[way], percent) for way in WAYS)
            lines.append(
                f"| {number} | p{percent} | {read:.1f} | {store:.1f} ({store / read:.2f}) "
                f"| {submit:.1f} ({submit / read:.2f}) |"
            )
    save("submit_latency", {"milliseconds": runs}, lines)


def measure(weights: str) -> dict[str, list[float]]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), YOLO_MODEL=weights, WORKER_CONCURRENCY="2") as stack,
    ):
        stack.start()
        stack.spawn(
            "bare",
            *(sys.executable, "-m", "uvicorn", "bench.bare_app:app"),
            *("--port", str(port), "--log-level", "warning"),
        )
        url = f"http://127.0.0.1:{port}/docs"
        wait_until(lambda: answers(url), seconds=30, what="the bare endpoints are up")
        return asyncio.run(sample(stack.port, port))


async def sample(gateway: int, bare: int) -> dict[str, list[float]]:
    image = photograph()
    request = post_form("/predict/", image)
    probes = {
        "read": (bare, post_form("/read/", image)),
        "store": (bare, post_form("/store/", image)),
        "submit": (gateway, request),
    }
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    done = asyncio.Event()

    async def client() -> None:
        async with Connection("127.0.0.1", gateway) as connection:
            while not done.is_set():
                await connection.submit_and_wait(request)

    async def probe() -> None:
        await asyncio.sleep(3)  # until the workers are busy and all is warm
        connections = {
            way: await Connection("127.0.0.1", port).__aenter__()
            for way, (port, _) in probes.items()
        }
        for number in range(SAMPLES + 10):
            for way, connection in connections.items():
                begin = time.perf_counter()
                answer = await connection.send(probes[way][1])
                assert answer.status == 201, answer.body
                if number >= 10:
                    times[way].append((time.perf_counter() - begin) * 1000)
                await asyncio.sleep(PAUSE_SECONDS)
        done.set()
        for connection in connections.values():
            await connection.__aexit__()

    await asyncio.gather(probe(), *(client() for _ in range(CLIENTS)))
    return times


if __name__ == "__main__":
    main()
