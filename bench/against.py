"""Compares this checkout with another one, in turns in one run: does a change cost anything?

git worktree add ../before SOME_COMMIT
python -m bench.against ../before
python -m bench.against ../before --weights models/demo.pt

Each turn is a run of `bench.queue_plane` in a checkout, with its own code and this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.report import RESULTS, save, spread

THIS = RESULTS.parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--weights", default="", help="a real model instead of a no-op detector")
    arguments = parser.parse_args()
    options = ["--repeats", "1", "--seconds", str(arguments.seconds)]
    options += ["--weights", str(Path(arguments.weights).resolve())] if arguments.weights else []
    name = "job_cost_auto" if arguments.weights else "queue_plane"
    sides = (("before", arguments.other), ("now", THIS))
    runs = [
        {who: rate(root, options, name) for who, root in sides} for _ in range(arguments.repeats)
    ]
    ratios = [run["now"] / run["before"] for run in runs]
    what = "demo model" if arguments.weights else "no-op detector"
    lines = [
        f"Jobs a second, {what}; median (least-most) of {len(runs)} turns.",
        "",
        "| before | now | now / before |",
        "| --- | --- | --- |",
        f"| {spread([run['before'] for run in runs])} | {spread([run['now'] for run in runs])} "
        f"| {spread(ratios, 3)} |",
    ]
    save(f"against_{name}", runs, lines)


def rate(root: Path, options: list[str], name: str) -> float:
    """Jobs a second of one run in a checkout. Its own results stay as they were."""
    results = root.resolve() / "bench" / "results"
    kept = {path: path.read_bytes() for path in results.glob(f"{name}.*")}
    try:
        subprocess.run(
            [sys.executable, "-m", "bench.queue_plane", *options],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root.resolve())},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        (run,) = json.loads((results / f"{name}.json").read_text())["figures"]
        return float(run["rate"])
    finally:
        for path in results.glob(f"{name}.*"):
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)


if __name__ == "__main__":
    main()
