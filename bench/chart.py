"""Draws bench/results/throughput.json as the chart of the README.

python -m bench.chart
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import matplotlib as mpl

from bench.report import RESULTS

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes

COLOURS = {
    "limit": "#c3c7cf",
    "yolo-queue": "#2458d3",
    "LitServe": "#8a6fb0",
    "tutorial design": "#c98a3d",
}
BAR = 0.2


def main() -> None:
    kept = json.loads((RESULTS / "throughput.json").read_text())
    machine, figures = kept["machine"], kept["figures"]
    figure, panels = plt.subplots(1, len(figures), figsize=(10, 3.6), layout="constrained")
    for panel, (size, runtimes) in zip(panels, figures.items(), strict=True):
        draw(panel, size, runtimes)
    handles = {label: bar for panel in panels for bar, label in labelled(panel)}
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=4, frameon=False
    )
    figure.suptitle(
        f"Images a second, {machine['cores']} cores ({machine['cpu']}), load generator included",
        fontsize=11,
    )
    path = RESULTS / "throughput.png"
    figure.savefig(path, dpi=130)
    print(f"wrote {path.relative_to(Path.cwd())}")


def draw(panel: Axes, size: str, runtimes: dict[str, dict[str, list[float]]]) -> None:
    for place, systems in enumerate(runtimes.values()):
        for number, (system, colour) in enumerate(COLOURS.items()):
            if system not in systems:
                continue
            rates = systems[system]
            middle = statistics.median(rates)
            error = [[middle - min(rates)], [max(rates) - middle]]
            at = place + (number - 1.5) * BAR
            panel.bar(at, middle, BAR * 0.92, color=colour, label=system, yerr=error, ecolor="#555")
            panel.text(at, middle * 0.04, f"{middle:.0f}", ha="center", fontsize=8, color="white")
    panel.set_xticks(range(len(runtimes)), list(runtimes))
    panel.set_title({"small": "photographs of 0.1 MB"}.get(size, f"JPEGs of {size}"), fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)


def labelled(panel: Axes) -> list[tuple[Artist, str]]:
    handles, labels = panel.get_legend_handles_labels()
    return list(zip(handles, labels, strict=True))


if __name__ == "__main__":
    main()
