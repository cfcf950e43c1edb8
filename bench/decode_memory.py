"""Measures the memory that decoding the largest pictures takes: alone, and in a worker of 2 GiB.

python -m bench.decode_memory

Each picture has 100 megapixels, the default of MAX_IMAGE_PIXELS, or what is allowed of its kind.
"Growth" is that of the largest resident size of a process that decodes it and does nothing else.
The worker has the demo model, one process, and Compose's limit of 2 GiB as a memory cgroup (where
root may make one).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from bench.report import save
from shared.errors import UploadError
from shared.image_header import check_file
from shared.settings import Settings
from tests.support.client import wait_for
from tests.support.largest_pictures import largest_pictures
from tests.support.memory_cgroup import memory_cgroup, why_not
from tests.support.processes import peak_resident_mib, pool_pids
from tests.support.stack import ROOT, Stack

LIMIT_BYTES = 2 << 30
MAX_PIXELS = Settings.model_fields["max_image_pixels"].default

DECODE = """
import os, sys, time
from pathlib import Path
import cv2
from shared.errors import UndecodableImage
from tests.support.processes import peak_resident_mib
from worker.model.images import decode

cv2.setNumThreads(1)
image, pid = Path(sys.argv[1]).read_bytes(), os.getpid()
before, begin = peak_resident_mib(pid), time.perf_counter()
try:
    decode(image, max_pixels=int(sys.argv[2]))
    outcome = "decoded"
except UndecodableImage:
    outcome = "refused"
print(peak_resident_mib(pid) - before, time.perf_counter() - begin, outcome)
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = [
        "| picture | file, MB | growth, MiB | s | in a worker of 2 GiB |",
        "|" + " --- |" * 5,
    ]
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        files: dict[str, Path] = {}
        for kind, data in largest_pictures():
            files[kind] = pictures / kind.replace(":", "")
            files[kind].write_bytes(data)
        served, peak = in_a_worker(files)
        for kind, path in files.items():
            size = path.stat().st_size
            row: dict[str, object] = {"kind": kind, "file_bytes": size, "worker": served.get(kind)}
            try:
                check_file(path.read_bytes(), max_pixels=MAX_PIXELS)
                growth, seconds, outcome = alone(path)
                row |= {"growth_mib": growth, "seconds": seconds, "outcome": outcome}
                shown = f"{growth:.0f} | {seconds:.1f}"
            except UploadError as refusal:
                row["refused"] = refusal.message
                shown = "refused by the gateway | "
            figures.append(row)
            lines.append(f"| {kind} | {size / 1e6:.1f} | {shown} | {row['worker'] or ''} |")
    lines += ["", f"The worker's largest resident process: {peak:.0f} MiB."]
    save("decode_memory", {"pictures": figures, "worker_process_mib": peak}, lines)


def alone(path: Path) -> tuple[float, float, str]:
    """Growth in MiB, seconds, and whether it was decoded."""
    out = subprocess.run(
        [sys.executable, "-c", DECODE, str(path), str(MAX_PIXELS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    growth, seconds, outcome = out.stdout.split()
    return float(growth), float(seconds), outcome


def in_a_worker(files: dict[str, Path]) -> tuple[dict[str, str], float]:
    """How the job of each file ended, and the largest resident size of the process in MiB."""
    if reason := why_not():
        print(f"Not under a memory limit: {reason}.")
        return {}, 0.0
    ends = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        memory_cgroup(LIMIT_BYTES) as cgroup,
        Stack(Path(folder), WORKER_CONCURRENCY="1") as stack,
    ):
        stack.start(workers=0)
        worker = stack.start_worker(within=cgroup.join)
        stack.wait_ready(processes=1)
        (process,) = pool_pids(worker)
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            for kind, path in files.items():
                answer = client.post("/predict/", files={"file": path.read_bytes()})
                if answer.status_code == 201:
                    job = wait_for(client, answer.json()["task_id"], seconds=120)
                    attempts = f", attempt {job['attempts']}" if job["attempts"] > 1 else ""
                    ends[kind] = job["status"] + attempts
                else:
                    ends[kind] = answer.json()["code"]
        same = pool_pids(worker) == [process]
        assert same, f"the process that served them is not the first one any more: {ends}"
        peak = peak_resident_mib(process)
    return ends, peak


if __name__ == "__main__":
    main()
