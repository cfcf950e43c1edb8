"""Measures the memory of each process, and how much of it the fork shares.

python -m bench.memory --weights yolov8n.pt

Resident: all pages a process touches. Shared: of those, pages it has in common with others.
Proportional: shared pages divided among their users, so that the column's sum is what is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from bench.report import save
from tests.support.http_load import Connection, post_form
from tests.support.images import photograph
from tests.support.processes import mapped_mib, pool_pids
from tests.support.stack import ROOT, Stack

RUNTIMES = {"torch": "PyTorch", "openvino": "OpenVINO"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve())
    lines = ["| process | runtime | resident, MiB | shared | proportional |", "|" + " --- |" * 5]
    figures: dict[str, object] = {}
    for runtime, name in RUNTIMES.items():
        figures[runtime] = rows = processes(weights, runtime)
        lines += [
            f"| {process} | {name} | {row['rss']:.0f} | {row['shared']:.0f} | {row['pss']:.0f} |"
            for process, row in rows.items()
        ]
    save("memory", figures, lines)


def processes(weights: str, runtime: str) -> dict[str, dict[str, float]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), YOLO_MODEL=weights, YOLO_RUNTIME=runtime) as stack,
    ):
        stack.start()
        asyncio.run(jobs(stack.port, 20))
        (worker,) = stack.workers
        pids = {"gateway": stack.gateway.pid, "Redis": stack.redis.pid}
        pids |= {"worker parent": worker.pid}
        pids |= {f"pool process {n}": pid for n, pid in enumerate(pool_pids(worker), 1)}
        return {name: mapped_mib(pid) for name, pid in pids.items()}


async def jobs(port: int, count: int) -> None:
    async with Connection("127.0.0.1", port) as connection:
        for _ in range(count):
            await connection.submit_and_wait(post_form("/predict/", photograph()))


if __name__ == "__main__":
    main()
