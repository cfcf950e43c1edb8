"""Measures images a second through the whole stack, beside the machine's limit and other designs.

    python -m bench.throughput --weights yolov8n.pt --seconds 15 --repeats 3

Systems: the limit (bench/limit.py), the tutorial design (bench/tutorial_app.py), LitServe where it
is installed (bench/litserve_app.py), and yolo-queue. They take turns, so that a slow minute of the
machine hits all of them. Everything shares the same cores, the load generator as well.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from PIL import Image

from bench import limit
from bench.report import earlier, save, spread
from tests.support.http_load import Connection, get, post_form, post_image
from tests.support.images import encoded, photograph
from tests.support.stack import ROOT, Stack, answers, free_port, wait_until

SIZES = ("small", "12 MP")
CLIENTS = 8
WARM_UP_SECONDS = 3.0
POLL_SECONDS = 0.05
RUNTIMES = {
    "PyTorch": {"YOLO_RUNTIME": "torch"},
    "OpenVINO, 32 bits": {"YOLO_RUNTIME": "openvino", "YOLO_PRECISION": "f32"},
    "OpenVINO, auto": {"YOLO_RUNTIME": "openvino", "YOLO_PRECISION": "auto"},
}
PUBLISHED_TUTORIAL = "PyTorch"
"""The tutorial design is measured as published; with another runtime it would be another one."""

Rates = dict[str, dict[str, list[float]]]
Client = Callable[[Connection, bytes], Awaitable[str]]
"""Sends one image and returns the state of its job once that has a result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="the others' figures stay"
    )
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve())
    figures: dict[str, Rates] = earlier("throughput") if set(arguments.sizes) < set(SIZES) else {}
    with tempfile.TemporaryDirectory() as folder:
        for size, images in photographs().items():
            if size not in arguments.sizes:
                continue
            figures.pop(size, None)
            paths = []
            for number, data in enumerate(images):
                path = Path(folder) / f"{size}-{number}.jpg"
                path.write_bytes(data)
                paths.append(str(path))
            for repeat in range(arguments.repeats):
                for runtime, environment in RUNTIMES.items():
                    bench = Bench(
                        Path(folder) / f"{size}-{repeat}-{runtime}",
                        {"YOLO_MODEL": weights, **environment},
                        images,
                        paths,
                        arguments.seconds,
                    )
                    for system, rate in bench.run(tutorial=runtime == PUBLISHED_TUTORIAL):
                        print(f"{size}: {runtime}: {system}: {rate:.1f} images/s", flush=True)
                        of_runtime = figures.setdefault(size, {}).setdefault(runtime, {})
                        of_runtime.setdefault(system, []).append(rate)
    save("throughput", figures, table(figures))


def photographs() -> dict[str, list[bytes]]:
    """The two photographs inside ultralytics, and both at 12 megapixels."""
    small = [photograph("bus.jpg"), photograph("zidane.jpg")]
    large = []
    for data in small:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        wide = picture.width > picture.height
        size = (4000, 3000) if wide else (3000, 4000)
        large.append(encoded(picture.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90))
    return dict(zip(SIZES, (small, large), strict=True))


class Bench:
    """One runtime's systems, one after the other."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        images: list[bytes],
        paths: list[str],
        seconds: float,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder, self._environment = folder, environment
        self._images, self._paths, self._seconds = images, paths, seconds

    def run(self, *, tutorial: bool) -> list[tuple[str, float]]:
        rates = [("limit", self._limit()), ("yolo-queue", self._ours())]
        if tutorial:
            rates.append(("tutorial design", self._tutorial()))
        if importlib.util.find_spec("litserve"):
            rates.append(("LitServe", self._litserve()))
        return rates

    def _limit(self) -> float:
        return limit.measure(
            self._environment["YOLO_RUNTIME"],
            self._environment["YOLO_MODEL"],
            self._paths,
            precision=self._environment.get("YOLO_PRECISION", "f32"),
            seconds=self._seconds,
        )

    def _ours(self) -> float:
        with Stack(self._folder / "ours", **self._environment) as stack:
            stack.start()
            return self._load(stack.port, submit_and_wait)

    def _tutorial(self) -> float:
        port = free_port()
        command = (
            *(sys.executable, "-m", "uvicorn", "bench.tutorial_app:app"),
            *("--port", str(port), "--log-level", "warning"),
        )
        return self._other("tutorial", command, port, "/ready", poll)

    def _litserve(self) -> float:
        port = free_port()
        command = (sys.executable, "-m", "bench.litserve_app", str(port))
        return self._other("litserve", command, port, "/health", answer_at_once)

    def _other(
        self, name: str, command: tuple[str, ...], port: int, path: str, client: Client
    ) -> float:
        with Stack(self._folder / name, **self._environment) as stack:
            stack.folder.mkdir()
            server = stack.spawn(name, *command)
            url = f"http://127.0.0.1:{port}{path}"
            try:
                wait_until(lambda: answers(url), seconds=120, what=f"{name} is up")
                return self._load(port, client)
            finally:
                os.killpg(server.pid, signal.SIGKILL)  # LitServe's processes outlive their server

    def _load(self, port: int, client: Client) -> float:
        took = asyncio.run(
            closed_loop(
                port,
                self._images,
                client,
                clients=CLIENTS,
                warm_up=WARM_UP_SECONDS,
                seconds=self._seconds,
            )
        )
        return len(took) / self._seconds


async def submit_and_wait(connection: Connection, image: bytes) -> str:
    """Send the image as the body of a request that is held until its result is there."""
    return (await connection.send(post_image("/predict/", image, "Prefer: wait=60"))).job_status()


async def poll(connection: Connection, image: bytes) -> str:
    accepted = await connection.send(post_form("/predict/", image))
    while True:
        await asyncio.sleep(POLL_SECONDS)
        answer = await connection.send(get(f"/result/{accepted.task_id()}"))
        if answer.job_status() not in ("queued", "processing"):
            return answer.job_status()


async def answer_at_once(connection: Connection, image: bytes) -> str:
    return (await connection.send(post_form("/predict", image))).job_status()


async def closed_loop(
    port: int, images: list[bytes], client: Client, *, clients: int, warm_up: float, seconds: float
) -> list[float]:
    """Each client sends a picture, has its result, and sends the next. Returns how long each job
    took that ended within the `seconds` after the warm-up."""
    took: list[float] = []
    begin = time.monotonic() + warm_up

    async def stream(number: int) -> None:
        async with Connection("127.0.0.1", port) as connection:
            while (sent := time.monotonic()) < begin + seconds:
                status = await client(connection, images[number % len(images)])
                assert status == "completed", status
                if begin <= time.monotonic() <= begin + seconds:
                    took.append(time.monotonic() - sent)
                number += 1

    await asyncio.gather(*(stream(number) for number in range(clients)))
    return took


def table(figures: dict[str, Rates]) -> list[str]:
    lines = ["Images a second: median of the repeats, smallest and largest in brackets.", ""]
    for size, runtimes in figures.items():
        lines += [f"| {size} | runtime | images/s | of the limit |", "| --- | --- | --- | --- |"]
        for runtime, systems in runtimes.items():
            top = statistics.median(systems["limit"])
            for system, rates in systems.items():
                share = statistics.median(rates) / top
                lines.append(f"| {system} | {runtime} | {spread(rates)} | {share:.2f} |")
        lines.append("")
    return lines


if __name__ == "__main__":
    main()
