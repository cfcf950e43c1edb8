"""Images a second through the whole stack, against the machine's limit and the tutorial design.

    python -m bench.throughput --weights yolov8n.pt --seconds 20 --repeats 3

Everything shares the same cores, the load generator included. Writes bench/results/throughput.json
and .md; each figure is the median of the repeats, with the smallest and largest beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
from PIL import Image

from bench import limit
from tests.support.images import encoded, photograph
from tests.support.stack import ROOT, Stack, free_port, wait_until

RESULTS = ROOT / "bench" / "results"
CLIENTS = 8
RUNTIMES = ("torch", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=str(ROOT / "models" / "demo.pt"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    weights = str(Path(arguments.weights).resolve())
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size, images in photographs().items():
            paths = []
            for number, data in enumerate(images):
                path = Path(folder) / f"{size}-{number}.jpg"
                path.write_bytes(data)
                paths.append(str(path))
            for repeat in range(arguments.repeats):
                for name, rate in measure_all(
                    Path(folder) / f"{size}-{repeat}", weights, images, paths, arguments.seconds
                ):
                    print(f"{size}: {name}: {rate:.1f} images/s", flush=True)
                    figures.setdefault(size, {}).setdefault(name, []).append(rate)
    write(figures, weights)


def photographs() -> dict[str, list[bytes]]:
    """The two photographs inside ultralytics, and both at 12 megapixels."""
    small = [photograph("bus.jpg"), photograph("zidane.jpg")]
    large = []
    for data in small:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        wide = picture.width > picture.height
        size = (4000, 3000) if wide else (3000, 4000)
        large.append(encoded(picture.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=90))
    return {"small": small, "12 MP": large}


def measure_all(
    folder: Path, weights: str, images: list[bytes], paths: list[str], seconds: float
) -> list[tuple[str, float]]:
    rates = []
    for runtime in RUNTIMES:
        rate = limit.measure(runtime, weights, paths, processes=2, threads=1, seconds=seconds)
        rates.append((f"limit, {runtime}", rate))
        rates.append(
            (f"yolo-queue, {runtime}", ours(folder / runtime, weights, runtime, images, seconds))
        )
    rates.append(
        ("tutorial design, torch", tutorial(folder / "tutorial", weights, images, seconds))
    )
    return rates


def ours(folder: Path, weights: str, runtime: str, images: list[bytes], seconds: float) -> float:
    folder.mkdir(parents=True)
    with Stack(folder, YOLO_MODEL=weights, YOLO_RUNTIME=runtime) as stack:
        stack.start()
        return asyncio.run(load(stack.url, images, seconds, waits=True))


def tutorial(folder: Path, weights: str, images: list[bytes], seconds: float) -> float:
    folder.mkdir(parents=True)
    port = free_port()
    with Stack(folder, YOLO_MODEL=weights) as stack:
        stack.spawn(
            "tutorial",
            *(sys.executable, "-m", "uvicorn", "bench.tutorial_app:app"),
            *("--port", str(port), "--log-level", "warning"),
        )
        url = f"http://127.0.0.1:{port}"

        def up() -> bool:
            try:
                return httpx.get(url + "/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(up, seconds=60, what="the tutorial design is up")
        return asyncio.run(load(url, images, seconds, waits=False))


async def load(url: str, images: list[bytes], seconds: float, *, waits: bool) -> float:
    """Closed loop: each client sends a picture, waits for its result, sends the next."""
    done: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def one(image: bytes) -> None:
            answer = await client.post("/predict/", files={"file": ("image.jpg", image)})
            path = f"/result/{answer.json()['task_id']}" + ("?wait=60" if waits else "")
            while True:
                if not waits:
                    await asyncio.sleep(0.05)
                # Read, but not parsed: what a client does with its result is its own affair.
                content = (await client.get(path)).content
                if re.search(rb'"status": ?"completed"', content[:1000]):
                    return
                assert not re.search(rb'"status": ?"(failed|expired)"', content[:1000]), content

        async def stream(number: int, until: float) -> None:
            while time.monotonic() < until:
                await one(images[number % len(images)])
                done.append(time.monotonic())
                number += 1

        await asyncio.gather(*(one(image) for image in images))
        begin = time.monotonic()
        await asyncio.gather(*(stream(n, begin + seconds) for n in range(CLIENTS)))
    counted = [at for at in done if at <= begin + seconds]
    return len(counted) / seconds


def write(figures: dict[str, dict[str, list[float]]], weights: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("torch", "openvino", "ultralytics-opencv-headless", "celery", "fastapi")
        },
        "weights": Path(weights).name,
        "date": datetime.now(UTC).date().isoformat(),
    }
    text = json.dumps({"machine": machine, "images_per_second": figures}, indent=2)
    (RESULTS / "throughput.json").write_text(text + "\n")
    lines = [
        f"{machine['cores']} cores, {machine['cpu']}; {machine['weights']}; {machine['date']}.",
        "Median of the repeats, smallest and largest in brackets.",
        "",
    ]
    for size, systems in figures.items():
        lines += [f"| {size} | images/s | of the limit |", "| --- | --- | --- |"]
        for name, rates in systems.items():
            runtime = name.rpartition(", ")[2]
            share = statistics.median(rates) / statistics.median(systems[f"limit, {runtime}"])
            spread = f"{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f})"
            lines.append(f"| {name} | {spread} | {share:.2f} |")
        lines.append("")
    (RESULTS / "throughput.md").write_text("\n".join(lines))
    print("\n".join(lines))


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
