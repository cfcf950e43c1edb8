"""Measures what distance costs: jobs a second with the workers behind a slow network to Redis.

    python -m bench.distance

The gateway is beside Redis. The workers reach it directly, or through a proxy that adds a round
trip of 0, 2 or 20 ms. A no-op detector shows the queue alone, the demo model a real job. Distances
take turns within each repeat, so that other work on the machine meets all alike, and are compared
with the direct connection of the same repeat. Writes bench/results/distance.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench.report import save, spread
from tests.support.http_load import closed_loop
from tests.support.images import noise_jpeg, photograph
from tests.support.slow_network import SlowNetwork
from tests.support.stack import Stack

DETECTORS = {"no-op": "tests.support.simulated_app", "demo model": "worker.app"}
DIRECT = "direct"
WARM_UP_SECONDS = 1.0
CLIENTS_PER_PROCESS = 8
"""Enough that a process that is done always finds the next job waiting."""


@dataclass
class Line:
    """One row of the table: one distance of one detector and number of processes."""

    detector: str
    processes: int
    distance: str
    """`direct`, or the proxy's round trip."""
    rates: list[float] = field(default_factory=list)
    """Jobs a second, by repeat."""
    ratios: list[float] = field(default_factory=list)
    """To the direct connection in the same repeat."""
    turns: list[float] = field(default_factory=list)
    """Round trips to Redis for each job, of the worker's processes together; none if direct."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-trips-ms", type=float, nargs="+", default=[0, 2, 20])
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=6, help="of one window")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    lines = [
        line
        for detector in arguments.detectors
        for processes in arguments.processes
        for line in measure(detector, processes, arguments)
    ]
    save("distance", [asdict(line) for line in lines], table(lines))


def measure(detector: str, processes: int, arguments: argparse.Namespace) -> list[Line]:
    """Two services side by side, one with its worker behind the proxy. Only one has work at a
    time."""
    image = photograph() if detector == "demo model" else noise_jpeg(640, 480, 100_000)
    load = partial(
        jobs_a_second, image, clients=processes * CLIENTS_PER_PROCESS, seconds=arguments.seconds
    )
    # Results are read at once; kept for longer, they fill Redis.
    settings = {"WORKER_CONCURRENCY": str(processes), "RESULT_TTL_SECONDS": "30"}
    direct = Line(detector, processes, DIRECT)
    behind = {ms: Line(detector, processes, f"{ms:g} ms") for ms in arguments.round_trips_ms}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder, "near"), **settings) as near,
        Stack(Path(folder, "far"), **settings) as far,
        SlowNetwork(far.redis.port) as network,
    ):
        far.worker_environment = {"REDIS_URL": network.url}
        for stack in (near, far):
            stack.folder.mkdir()
            stack.start(app=DETECTORS[detector])
        for _ in range(arguments.repeats):
            rate, _ = asyncio.run(load(near.port, turns=lambda: 0))
            direct.rates.append(rate)
            direct.ratios.append(1.0)
            say(direct)
            for milliseconds, line in behind.items():
                network.set_round_trip(milliseconds)
                rate, turns = asyncio.run(load(far.port, turns=lambda: network.turns))
                line.rates.append(rate)
                line.ratios.append(rate / direct.rates[-1])
                line.turns.append(turns)
                say(line)
        network.set_round_trip(0)  # so that the worker stops without delay
    return [direct, *behind.values()]


async def jobs_a_second(
    image: bytes, port: int, *, clients: int, seconds: float, turns: Callable[[], int]
) -> tuple[float, float]:
    """Jobs a second and turns a job, in the window after the warm-up."""
    async with closed_loop(port, image, clients) as done:
        await asyncio.sleep(WARM_UP_SECONDS)
        jobs, turned, begin = done(), turns(), time.monotonic()
        await asyncio.sleep(seconds)
        jobs, turned, took = done() - jobs, turns() - turned, time.monotonic() - begin
    return jobs / took, turned / max(1, jobs)


def say(line: Line) -> None:
    where = f"{line.detector}, {line.processes} processes, {line.distance}"
    print(f"{where}: {line.rates[-1]:.1f} jobs/s, {line.ratios[-1]:.2f}", flush=True)


def table(lines: list[Line]) -> list[str]:
    rows = [
        f"One worker; {CLIENTS_PER_PROCESS} clients a process. Median (least-most) of the repeats; "
        "the ratio is to the direct connection in the same repeat.",
        "",
        "| detector | processes | round trip | jobs/s | ratio | round trips a job |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        turns = spread(line.turns) if line.turns else "-"
        rows.append(
            f"| {line.detector} | {line.processes} | {line.distance} | {spread(line.rates)} | "
            f"{spread(line.ratios, 2)} | {turns} |"
        )
    return rows


if __name__ == "__main__":
    main()
