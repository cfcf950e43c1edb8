"""What each process takes in memory, what the fork shares, and how long a start takes.

python -m bench.memory --weights yolov8n.pt

Resident: all pages a process touches. Shared: of those, pages it has in common with others.
Proportional: shared pages divided among their users, so that the column's sum is what is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx

from bench.http_load import Connection, get, post_form
from bench.report import save, spread
from tests.support.images import photograph
from tests.support.stack import ROOT, Stack, free_port, pool_pids, wait_until

RUNTIMES = {"torch": "PyTorch", "openvino": "OpenVINO"}
STARTS = 3


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
    figures["start_seconds"] = times = starts(weights)
    lines += ["", f"`make run`'s start to ready, export made before: {spread(times)} s"]
    save("memory", figures, lines)


def processes(weights: str, runtime: str) -> dict[str, dict[str, float]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), YOLO_MODEL=weights, YOLO_RUNTIME=runtime) as stack,
    ):
        stack.redis.start()
        gateway = stack.start_gateway()
        worker = stack.start_worker()
        stack.wait_ready(processes=2)
        asyncio.run(jobs(stack.port, 20))
        pids = {"gateway": gateway.pid, "Redis": stack.redis.pid, "worker parent": worker.pid}
        pids |= {f"pool process {n}": pid for n, pid in enumerate(pool_pids(worker), 1)}
        return {name: mapped_mib(pid) for name, pid in pids.items()}


async def jobs(port: int, count: int) -> None:
    async with Connection("127.0.0.1", port) as connection:
        for _ in range(count):
            accepted = await connection.send(post_form("/predict/", photograph()))
            await connection.send(get(f"/result/{accepted.task_id()}?wait=60"))


def mapped_mib(pid: int) -> dict[str, float]:
    kib: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kib[name] = int(value)
    return {
        "rss": kib["Rss:"] / 1024,
        "shared": (kib["Shared_Clean:"] + kib["Shared_Dirty:"]) / 1024,
        "pss": kib["Pss:"] / 1024,
    }


def starts(weights: str) -> list[float]:
    """Seconds from the command to a `/ready` that says yes; the first start is not counted."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(STARTS + 1):
            ports = {name: str(free_port()) for name in ("PORT", "FLOWER_PORT")}
            stack = Stack(Path(folder), YOLO_MODEL=weights, DATA_DIR=folder, **ports)
            stack.environment.pop("REDIS_URL")
            stack.environment["EMBEDDED_REDIS_PORT"] = str(free_port())
            url = f"http://127.0.0.1:{ports['PORT']}"
            begin = time.monotonic()
            service = stack.spawn("up", sys.executable, "-m", "cli.main", "up")
            wait_until(partial(is_ready, url), seconds=120, what="the service is ready")
            times.append(time.monotonic() - begin)
            stop(service)
    return times[1:]


def is_ready(url: str) -> bool:
    try:
        ready: int = httpx.get(url + "/ready", timeout=5).json().get("ready_processes", 0)
    except (httpx.TransportError, ValueError):
        return False
    return ready >= 2


def stop(service: subprocess.Popen[bytes]) -> None:
    service.send_signal(signal.SIGINT)
    service.wait(timeout=60)


if __name__ == "__main__":
    main()
