"""How long a submit takes while 32 clients keep the workers busy.

    python -m bench.submit_latency --weights yolov8n.pt

Beside the gateway runs an endpoint that only reads the upload (bench/bare_app.py). A client sends
the same photograph to both in turn, while 32 others send, wait and send again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import httpx

from bench.http_load import Connection, get, post_form
from bench.report import percentile, save
from tests.support.images import photograph
from tests.support.stack import ROOT, Stack, free_port, wait_until

CLIENTS = 32
SAMPLES = 400
PAUSE_SECONDS = 0.02


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
        "| run | bare p50 | submit p50 | ratio | bare p99 | submit p99 | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, run in enumerate(runs, 1):
        cells = []
        for share in (0.5, 0.99):
            bare, ours = (percentile(run[name], share) for name in ("bare", "gateway"))
            cells += [f"{bare:.1f}", f"{ours:.1f}", f"{ours / bare:.2f}"]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
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

        def up() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/docs").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(up, seconds=30, what="the bare endpoint is up")
        return asyncio.run(sample({"gateway": stack.port, "bare": port}))


async def sample(ports: dict[str, int]) -> dict[str, list[float]]:
    request = post_form("/predict/", photograph())
    times: dict[str, list[float]] = {name: [] for name in ports}
    done = asyncio.Event()

    async def client() -> None:
        async with Connection("127.0.0.1", ports["gateway"]) as connection:
            while not done.is_set():
                accepted = await connection.send(request)
                await connection.send(get(f"/result/{accepted.task_id()}?wait=60"))

    async def probe() -> None:
        await asyncio.sleep(3)  # until the workers are busy and all is warm
        connections = {
            name: await Connection("127.0.0.1", port).__aenter__() for name, port in ports.items()
        }
        for number in range(SAMPLES + 10):
            for name, connection in connections.items():
                begin = time.perf_counter()
                answer = await connection.send(request)
                assert answer.status == 201, answer.body
                if number >= 10:
                    times[name].append((time.perf_counter() - begin) * 1000)
                await asyncio.sleep(PAUSE_SECONDS)
        done.set()
        for connection in connections.values():
            await connection.__aexit__()

    await asyncio.gather(probe(), *(client() for _ in range(CLIENTS)))
    return times


if __name__ == "__main__":
    main()
