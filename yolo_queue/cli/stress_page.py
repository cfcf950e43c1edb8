"""Owns the look of the stress report: one HTML file without scripts or anything from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from yolo_queue.cli.svg_charts import Series, dots, lines, stacked_bar

STYLE = Path(__file__).with_name("stress_page.css")


def page(report: dict[str, Any]) -> str:
    """The report of `stress_report.report` as a page."""
    run, account = report["run"], report["account"]
    facts = [
        run["url"],
        run.get("model", ""),
        run["images"],
        f"{run['mean_image_bytes'] / 1e6:.1f} MB each",
        f"{run['rate']:g} images/s" if run["rate"] else f"{run['concurrency']} uploads at a time",
        f"{run.get('ready_processes', 0)} worker processes",
        run["began_at"],
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Stress run: {account["submitted"]} images</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<p class="eyebrow">yolo-queue stress</p>
<h1>{account["submitted"]:,} images, {_verdict(account)}</h1>
<p class="facts">{"".join(f"<span>{escape(str(fact))}</span>" for fact in facts if fact)}</p>
</header>
<main>
{_tiles(report)}
{_charts(report)}
<div class="tables">
{_account_table(account, run)}
{_latency_table(report["latency_seconds"])}
</div>
</main>
</body>
</html>
"""


def _verdict(account: dict[str, Any]) -> str:
    if account["ok"]:
        return '<em class="good">every one accounted for</em>'
    wrong = [
        f"{account[name]} {name.replace('_', ' ')}"
        for name in ("lost", "unfinished", "duplicated", "ended_twice")
        if account[name]
    ]
    return f'<em class="bad">{escape(", ".join(wrong) or "the account does not balance")}</em>'


def _tiles(report: dict[str, Any]) -> str:
    account = report["account"]
    end = report["latency_seconds"].get("end_to_end", {})
    missing = account["lost"] + account["unfinished"]
    tiles = [
        (f"{account['accepted']:,}", "accepted", ""),
        (f"{account['completed']:,}", "completed", ""),
        (f"{account['failed']:,}", "failed", "bad" if account["failed"] else ""),
        (f"{missing:,}", "lost", "bad" if missing else "good"),
        (f"{report['throughput_per_second']:.1f}", "images a second", ""),
        (_seconds(end.get("p50")), "median end to end", ""),
        (_seconds(end.get("p99")), "99 % end to end within", ""),
        (f"{report['sent_bytes'] / 1e6:,.0f} MB", "sent", ""),
    ]
    inner = "".join(
        f'<div><b class="{style}">{value}</b><span>{name}</span></div>'
        for value, name, style in tiles
    )
    return f'<section class="tiles">{inner}</section>'


def _charts(report: dict[str, Any]) -> str:
    length = report["duration_seconds"]
    samples = report["queue_samples"]
    good = [i for i in report["images"] if i["state"] == "completed" and i["ended"] is not None]
    bad = [i for i in report["images"] if i["state"] != "completed" and i["ended"] is not None]
    x_name = "seconds since the start"
    charts = [
        (
            "Throughput",
            "images a second",
            lines(
                [
                    Series("accepted", report["accepted_per_second"], "b"),
                    Series("completed", report["completed_per_second"], "a", filled=True),
                ],
                x_name=x_name,
                y_name="images a second",
                x_max=length,
            ),
        ),
        (
            "Queue",
            f"jobs; {report['deepest_queue']:,} waiting at most",
            lines(
                [
                    Series("waiting", [(s["at"], s["depth"]) for s in samples], "b", filled=True),
                    Series("in flight", [(s["at"], s["in_flight"]) for s in samples], "a"),
                ],
                x_name=x_name,
                y_name="jobs",
                x_max=length,
            ),
        ),
        (
            "End to end",
            "seconds from sending an image to its result in hand, by when it was sent",
            dots(
                [
                    Series("completed", _spans(good), "a"),
                    *([Series("ended otherwise", _spans(bad), "bad")] if bad else []),
                ],
                x_name=x_name,
                y_name="seconds end to end",
                x_max=length,
            ),
        ),
        ("Where the time goes", "mean of a completed job, at the service", _shares(report)),
    ]
    return (
        '<div class="charts">'
        + "".join(
            f"<section><h2>{title} <small>{note}</small></h2>{chart}</section>"
            for title, note, chart in charts
            if chart
        )
        + "</div>"
    )


def _shares(report: dict[str, Any]) -> str:
    times = report["latency_seconds"]
    styles = {"queue": "b", "decode": "c", "infer": "a", "draw": "d"}
    parts = [(n, times[n]["mean"] * 1000, style) for n, style in styles.items() if n in times]
    if not parts:
        return ""
    work = [part for part in parts if part[0] != "queue"]
    return (
        stacked_bar(parts, unit="ms")
        + '<p class="note">Without the time in the queue:</p>'
        + stacked_bar(work, unit="ms")
    )


def _spans(images: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(image["started"], image["ended"] - image["started"]) for image in images]


def _account_table(account: dict[str, Any], run: dict[str, Any]) -> str:
    rows = [
        (name.replace("_", " "), account[name])
        for name in (
            *("submitted", "accepted", "refused", "completed", "failed", "cancelled", "expired"),
            *("lost", "unfinished", "duplicated", "ended_twice", "more_than_one_attempt"),
        )
    ]
    rows += [(f"refusals: {code}", n) for code, n in account["refusals_by_code"].items()]
    rows += [(f"failed: {code}", n) for code, n in account["failed_by_code"].items()]
    rows.append(("read once more at the end", account["looked_at_again"]))
    if "finished_by_its_own_count" in run:
        rows.append(("finished by the service's own count", run["finished_by_its_own_count"]))
    body = "".join(f"<tr><th>{escape(n)}</th><td>{value:,}</td></tr>" for n, value in rows)
    return (
        "<section><h2>Account</h2><table>"
        f"{body}</table><p class='note'>submitted = accepted + refused; accepted = completed + "
        "failed + cancelled + expired + lost + unfinished.</p></section>"
    )


def _latency_table(times: dict[str, dict[str, float]]) -> str:
    columns = ("p50", "p95", "p99", "max")
    head = "".join(f"<th>{column}</th>" for column in columns)
    names = {"submit": "submit", "end_to_end": "end to end", "total": "at the service"}
    body = "".join(
        f"<tr><th>{names.get(name, name)}</th>"
        + "".join(f"<td>{_seconds(figures[column])}</td>" for column in columns)
        + "</tr>"
        for name, figures in times.items()
    )
    return (
        f"<section><h2>Latency</h2><table><tr><th></th>{head}</tr>{body}</table>"
        "<p class='note'>Submit is the request that was accepted, upload included. End to end is "
        "from the first byte sent to the result in hand, pauses after refusals included. Queue to "
        "draw are the service's own measurements.</p></section>"
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
