"""Draws bench/results/soak_noop.json and soak_real.json as docs/images/soak.png.

python -m bench.soak_chart
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.report import RESULTS
from bench.soak import WARM_UP
from bench.trend import Trend

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

PATH = Path(__file__).resolve().parent.parent / "docs" / "images" / "soak.png"
RUNS = {"noop": "no-op detector", "real": "demo model"}
COLOURS = {
    "gateway, MiB": "#2458d3",
    "worker parent, MiB": "#8a6fb0",
    "pool process 1, MiB": "#c98a3d",
    "pool process 2, MiB": "#e0b878",
    "Redis, MiB in use": "#3b9a6d",
    "Redis, MiB of its file": "#c3c7cf",
}


def main() -> None:
    kept = [json.loads((RESULTS / f"soak_{name}.json").read_text()) for name in RUNS]
    figure, panels = plt.subplots(1, len(RUNS), figsize=(10, 4), layout="constrained")
    for panel, run, detector in zip(panels, kept, RUNS.values(), strict=True):
        draw(panel, run["figures"], detector)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    machine = kept[0]["machine"]
    figure.suptitle(
        "Memory and Redis' file against jobs done, each measured when all results have expired\n"
        f"({machine['cores']} cores, {machine['cpu']})",
        fontsize=11,
    )
    figure.savefig(PATH, dpi=130)
    print(f"wrote {PATH.relative_to(Path.cwd())}")


def draw(panel: Axes, figures: dict[str, Any], detector: str) -> None:
    samples, jobs = figures["samples"], figures["jobs"]
    at = [sample["jobs"] for sample in samples]
    kept = [sample for sample in samples if sample["jobs"] >= WARM_UP * jobs]
    for name, colour in COLOURS.items():
        trend = Trend.through([s["jobs"] for s in kept], [s[name] for s in kept])
        panel.plot(at, [sample[name] for sample in samples], color=colour, label=name, linewidth=1)
        growth = f"{trend.growth(jobs):+.1f}"
        panel.annotate(f" {growth}", (at[-1], samples[-1][name]), fontsize=7, color=colour)
    panel.axvline(WARM_UP * jobs, color="#999", linewidth=0.7, linestyle=":")
    panel.set_title(f"{jobs:,} jobs, {detector}; growth in the run at the right", fontsize=10)
    panel.set_xlabel("jobs", fontsize=9)
    panel.set_ylabel("MiB", fontsize=9)
    panel.set_ylim(bottom=0)
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
