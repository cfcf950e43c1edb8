"""Shows the report of a stress run in the terminal, and exports the same view as HTML."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from yolo_queue.cli.watch import sparkline

HTML_COLUMNS = 100
PERCENTILES = ("p50", "p95", "p99", "max")
LOSSES = ("lost", "unfinished", "duplicated", "ended_twice")
NOTE = (
    "submitted = accepted + refused; accepted = completed + failed + cancelled + expired + lost + "
    "unfinished. Submit is the accepted request, upload included. End to end is from the first "
    "byte sent to the result in hand, pauses after refusals included. The service measures queue, "
    "decode, infer, draw and total."
)
STAGES = {"queue": "yellow", "decode": "blue", "infer": "green", "draw": "magenta"}


def save_html(report: dict[str, Any], path: Path) -> None:
    """Write what `summary` shows to a page without scripts. Raises OSError."""
    console = Console(record=True, width=HTML_COLUMNS, file=io.StringIO())
    console.print(summary(report))
    console.save_html(str(path), theme=DEFAULT_TERMINAL_THEME)


def summary(report: dict[str, Any]) -> RenderableType:
    """A view of what `stress_report.report` returns."""
    sections: list[RenderableType] = [_heading(report), ""]
    sections.append(Columns([_account(report), _latencies(report)], padding=(0, 3, 1, 0)))
    sections.append("")
    if stages := _stages(report["latency_seconds"]):
        sections += [stages, ""]
    return Group(*sections, _over_time(report), "", Text(NOTE, "dim"))


def _heading(report: dict[str, Any]) -> Text:
    run, account = report["run"], report["account"]
    wrong = [f"{account[name]} {_words(name)}" for name in LOSSES if account[name]]
    if account["ok"]:
        verdict, colour = "every one accounted for", "green"
    else:
        verdict, colour = ", ".join(wrong) or "the account does not balance", "red"
    facts = [
        *(run["url"], run.get("model", ""), run["images"]),
        f"{run['mean_image_bytes'] / 1e6:.1f} MB each",
        f"{run['rate']:g} images/s" if run["rate"] else f"{run['concurrency']} uploads at a time",
        f"{run.get('ready_processes', 0)} worker processes",
        run["began_at"],
    ]
    return Text.assemble(
        (f"{account['submitted']:,} images, ", "bold"),
        (verdict, f"bold {colour}"),
        f"\n{report['throughput_per_second']:.2f} completed images/s, "
        f"{report['duration_seconds']:.1f} s, {report['sent_bytes'] / 1e6:,.0f} MB sent\n",
        (", ".join(str(fact) for fact in facts if fact), "dim"),
    )


def _account(report: dict[str, Any]) -> Table:
    account, run = report["account"], report["run"]
    table = _table("Account", "images")
    for name in ("submitted", "accepted", "refused", "completed", "failed", "cancelled", "expired"):
        table.add_row(name, f"{account[name]:,}")
    for name in LOSSES:
        table.add_row(_words(name), Text(str(account[name]), "red" if account[name] else "green"))
    for name in ("more_than_one_attempt", "looked_at_again"):
        table.add_row(_words(name), f"{account[name]:,}")
    if "finished_by_its_own_count" in run:
        table.add_row("finished (service)", f"{run['finished_by_its_own_count']:,}")
    for kind in ("refusals", "refused", "failed"):
        for code, number in account[f"{kind}_by_code"].items():
            table.add_row(f"{kind}: {code}", f"{number:,}")
    return table


def _latencies(report: dict[str, Any]) -> Table:
    table = _table("Latency", *PERCENTILES)
    for name, figures in report["latency_seconds"].items():
        table.add_row(_words(name), *(_seconds(figures[column]) for column in PERCENTILES))
    return table


def _stages(times: Mapping[str, Mapping[str, float]]) -> Table | None:
    """The share of each stage in a completed job, drawn one after the other."""
    means = {name: times[name]["mean"] for name in STAGES if name in times}
    total = sum(means.values())
    if not total:
        return None
    work = total - means.get("queue", 0)
    table = _table("Where the time goes", "mean", "of all", "of the work", "")
    begin = 0.0
    for name, mean in means.items():
        bar = Bar(total, begin, begin + mean, width=40, color=STAGES[name])
        of_work = "" if name == "queue" or not work else f"{mean / work:.0%}"
        table.add_row(name, _seconds(mean), f"{mean / total:.0%}", of_work, bar)
        begin += mean
    return table


def _over_time(report: dict[str, Any]) -> Table:
    length, samples = report["duration_seconds"], report["queue_samples"]
    columns = len(report["completed_per_second"])
    waiting = [(sample["at"], sample["depth"]) for sample in samples]
    in_flight = [(sample["at"], sample["in_flight"]) for sample in samples]
    spans = [
        (image["started"], image["ended"] - image["started"])
        for image in report["images"]
        if image["state"] == "completed"
    ]
    rows = {
        "accepted/s": [rate for _, rate in report["accepted_per_second"]],
        "completed/s": [rate for _, rate in report["completed_per_second"]],
        "waiting": _highest(waiting, length, columns),
        "in flight": _highest(in_flight, length, columns),
        "end to end s": _highest(spans, length, columns),
    }
    table = _table("Over time")
    table.add_column(f"0 to {length:.0f} s", no_wrap=True)
    table.add_column("highest", justify="right")
    for name, values in rows.items():
        table.add_row(name, Text(sparkline(values), "cyan"), f"{max(values):.4g}")
    return table


def _highest(points: Sequence[tuple[float, float]], length: float, columns: int) -> list[float]:
    """The highest value in each of `columns` equal parts of `length` seconds; 0 without any."""
    highest = [0.0] * columns
    for moment, value in points:
        column = min(int(moment / length * columns), columns - 1) if length else 0
        highest[column] = max(highest[column], value)
    return highest


def _table(title: str, *columns: str) -> Table:
    """A heading, and columns of numbers."""
    table = Table(title, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
