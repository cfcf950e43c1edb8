"""Measures how long `/health` waits while files that are made to cost time are uploaded.

python -m bench.hostile_uploads

One client sends every file of tests/support/hostile_files one after the other, at 20 MB where it
grows, while another asks for `/health` all the time. Then the same with 20 MB that are no image,
for comparison, since receiving and refusing a body takes time as well. No worker runs.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import percentile, save
from shared.settings import Settings
from tests.support.hostile_files import hostile_files
from tests.support.stack import Stack

MAX_BYTES = Settings.model_fields["max_upload_bytes"].default - 65536
"""Some files are a little larger than was asked for."""
PLAIN = [(f"no image {number}", b"%PDF" + bytes(MAX_BYTES - 4)) for number in range(50)]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = [
        "| uploads | files | accepted | /health, ms: p50 | p99 | longest | during |",
        "|" + " --- |" * 7,
    ]
    figures = {}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        stack.start(workers=0)
        for name, files in (("no image", PLAIN), ("hostile files", hostile_files(MAX_BYTES))):
            figures[name] = row = measure(stack.port, files)
            lines.append(
                f"| {name} | {row['files']} | {row['accepted']} | {row['p50_ms']:.1f} | "
                f"{row['p99_ms']:.1f} | {row['longest_ms']:.0f} | {row['longest_during']} |"
            )
    save("hostile_uploads", figures, lines)


def measure(port: int, files: Iterable[tuple[str, bytes]]) -> dict[str, object]:
    number = accepted = 0
    with asking(port) as waits:
        for name, data in files:
            waits.uploading = name
            number += 1
            status, task_id = upload(port, data)
            assert status in (201, 415, 422), (name, status)
            if task_id:
                accepted += 1
                delete(port, task_id)
    milliseconds = [1000 * wait for wait, _ in waits.seen]
    longest, during = max(waits.seen)
    return {
        "files": number,
        "accepted": accepted,
        "asked": len(milliseconds),
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
        "longest_ms": 1000 * longest,
        "longest_during": during,
    }


class Waits:
    """How long each request took, and which file was being uploaded at the time."""

    def __init__(self) -> None:
        self.uploading = ""
        self.seen: list[tuple[float, str]] = []


@contextmanager
def asking(port: int) -> Iterator[Waits]:
    waits, stop = Waits(), threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not stop.is_set():
            begin, during = time.perf_counter(), waits.uploading
            connection.request("GET", "/health")
            connection.getresponse().read()
            waits.seen.append((time.perf_counter() - begin, during))
            stop.wait(0.002)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


def upload(port: int, data: bytes) -> tuple[int, str]:
    """The status, and the task's id if it was accepted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict/", data, {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers.get("Location", "")
    connection.close()
    return answer.status, location.rpartition("/")[2]


def delete(port: int, task_id: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("DELETE", f"/result/{task_id}")
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
