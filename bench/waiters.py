"""Measures what many waiting clients cost the gateway, and how right its estimates are.

    python -m bench.waiters --clients 1000

The detector only sleeps. What is measured: memory and CPU of the gateway with all clients on
`/events`, and each job's estimates against what happened to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.report import percentile
from tests.support.images import encoded, noise
from tests.support.processes import cpu_seconds, resident_mib
from tests.support.stack import Stack

SIMULATED_MS = 50
PROCESSES = 2


@dataclass
class Outcome:
    """What one run measured; times in seconds."""

    promised: list[tuple[float, float]] = field(default_factory=list)
    """(estimate while queued, time that was really left), for every estimate that was sent."""
    events: int = 0
    unfinished: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(
            Path(folder), SIMULATED_MS=str(SIMULATED_MS), WORKER_CONCURRENCY=str(PROCESSES)
        ) as stack,
    ):
        stack.start(app="tests.support.simulated_app")
        pid = stack.gateway.pid
        before = resident_mib(pid)
        outcome, seconds, cpu, peak = asyncio.run(run(stack, pid, arguments.clients))
    errors = [abs(left - estimate) for estimate, left in outcome.promised]
    relative = [abs(left - estimate) / left for estimate, left in outcome.promised if left > 2]
    print(f"{arguments.clients} clients on /events for {seconds:.0f} s, {outcome.events} events")
    print(f"gateway: {before:.0f} MiB before, {peak:.0f} MiB with all of them waiting", end=" ")
    print(f"({(peak - before) * 1024 / arguments.clients:.0f} KiB each)")
    print(f"gateway: {cpu / seconds:.0%} of a core while they wait")
    print(f"estimates: {len(errors)}; off by p50 {statistics.median(errors):.2f} s,", end=" ")
    print(f"p95 {percentile(errors, 95):.2f} s;", end=" ")
    print(f"of those above 2 s, by p50 {statistics.median(relative):.1%}")
    return 1 if outcome.unfinished else 0


async def run(stack: Stack, pid: int, clients: int) -> tuple[Outcome, float, float, float]:
    outcome = Outcome()
    image = encoded(noise(40, 30), "PNG")
    limits = httpx.Limits(max_connections=None)
    peak = 0.0
    async with httpx.AsyncClient(base_url=stack.url, timeout=300, limits=limits) as client:
        jobs = []
        for _ in range(clients):
            headers = {"Content-Type": "image/png"}
            answer = await client.post("/predict/", content=image, headers=headers)
            jobs.append(answer.json()["task_id"])
        begin, cpu = time.monotonic(), cpu_seconds(pid)
        watchers = [asyncio.create_task(watch(client, job, outcome)) for job in jobs]
        while not all(watcher.done() for watcher in watchers):
            peak = max(peak, resident_mib(pid))
            await asyncio.sleep(0.25)
        await asyncio.gather(*watchers)
        seconds = time.monotonic() - begin
    return outcome, seconds, cpu_seconds(pid) - cpu, peak


async def watch(client: httpx.AsyncClient, task_id: str, outcome: Outcome) -> None:
    estimates: list[tuple[float, float]] = []
    status = ""
    async with client.stream("GET", f"/result/{task_id}/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                outcome.events += 1
                job = json.loads(line[6:])
                status = job["status"]
                if job.get("eta_seconds") is not None:
                    estimates.append((time.monotonic(), job["eta_seconds"]))
    ended = time.monotonic()
    outcome.unfinished += status != "completed"
    outcome.promised += [(estimate, ended - at) for at, estimate in estimates]


if __name__ == "__main__":
    sys.exit(main())
