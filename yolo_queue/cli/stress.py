"""Owns `yolo-queue stress`: many large images at once, and an account of every one of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from yolo_queue import ApiError, AsyncClient, QueueState
from yolo_queue.cli import stress_images, stress_report
from yolo_queue.cli.image_files import NoImages, find
from yolo_queue.cli.service_options import FAILED, ApiKey, fail, unusable
from yolo_queue.cli.stress_load import Load, Plan


def stress(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Images to send.")] = 100,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=1000, help="Uploads at a time.")
    ] = 16,
    rate: Annotated[
        float, typer.Option(min=0, help="Images a second; 0: as fast as the uploads go.")
    ] = 0,
    width: Annotated[int, typer.Option(min=32, help="Of the images drawn, in pixels.")] = 4000,
    height: Annotated[int, typer.Option(min=32, help="Of the images drawn, in pixels.")] = 3000,
    folder: Annotated[
        Path | None, typer.Option(help="Send the images of this folder, in turn, instead.")
    ] = None,
    annotate: Annotated[bool, typer.Option(help="Ask for the annotated pictures.")] = True,
    retry_seconds: Annotated[
        float, typer.Option(min=0, help="How long a refused image comes back; 0: never.")
    ] = 120,
    patience_seconds: Annotated[
        float, typer.Option(min=1, help="How long nothing may end before the run gives up.")
    ] = 120,
    out: Annotated[
        Path, typer.Option(help="Where to write the report: this name with .json and .html.")
    ] = Path("stress-report"),
    # No variable: a load test goes to the address on its command line, or to this machine.
    url: Annotated[
        str, typer.Option("--url", help="The service to load.", rich_help_panel="Service")
    ] = "http://127.0.0.1:8000",
    api_key: ApiKey = "",
) -> None:
    """Send many large images at once and account for every one of them.

    \b
    Examples:
      yolo-queue stress                                100 pictures of 12 megapixels
      yolo-queue stress -n 1000 -c 64 --out big        writes big.json and big.html
      yolo-queue stress --rate 5 -n 300                five a second for a minute
      yolo-queue stress --folder photos --no-annotate

    Each image gets a name of its own in the account: submitted, accepted or refused (by code), then
    completed, failed, lost (accepted, but its id is unknown) or unfinished. A refusal with
    Retry-After is no loss: the image comes back, and the refusals are counted.

    Exit status: 0 every accepted job ended exactly once, 1 some were lost, unfinished or doubled,
    2 called wrongly, or the service took nothing at all.
    """
    plan = Plan(count, concurrency, rate, retry_seconds, patience_seconds, annotate)
    console = Console(stderr=True)
    try:
        report = asyncio.run(_run(plan, url, api_key, folder, (width, height), console))
    except (ApiError, ValueError, NoImages, OSError) as error:
        raise (unusable(error, url) if isinstance(error, ApiError) else fail(str(error))) from None
    paths = stress_report.write(report, out)
    Console().print(_table(report))
    typer.echo(f"Report: {' and '.join(map(str, paths))}")
    account = report["account"]
    if not account["accepted"]:
        raise fail("The service accepted nothing: " + str(account["refused_by_code"]))
    if not account["ok"]:
        raise typer.Exit(FAILED)


async def _run(
    plan: Plan,
    url: str,
    api_key: str,
    folder: Path | None,
    size: tuple[int, int],
    console: Console,
) -> dict[str, Any]:
    async with AsyncClient(url, api_key or None, retry_seconds=0) as client:
        before = await client.queue()
        if folder:
            paths = [
                image.source for image in find([str(folder)]) if isinstance(image.source, Path)
            ]
            supply = await asyncio.to_thread(stress_images.from_folder, paths)
        else:
            with console.status("Drawing images ..."):
                variants = min(plan.count, stress_images.VARIANTS)
                supply = await asyncio.to_thread(stress_images.drawn, *size, variants=variants)
        began_at = datetime.now(UTC)
        load = Load(client, supply, plan)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            show = asyncio.create_task(_show(load, live))
            try:
                await load.run()
            finally:
                show.cancel()
        with console.status("Reading every job once more ..."):
            await load.look_again()
        return stress_report.report(
            load,
            plan,
            {
                "url": url,
                "began_at": began_at.isoformat(timespec="seconds"),
                "images": str(folder) if folder else f"{size[0]} x {size[1]} pixels, drawn",
                "mean_image_bytes": round(supply.mean_bytes),
                **await _service(client, before),
            },
        )


async def _service(client: AsyncClient, before: QueueState) -> dict[str, Any]:
    """Who did the work, and what the service itself counted meanwhile."""
    facts: dict[str, Any] = {}
    with suppress(ApiError):
        after = await client.queue()
        facts["workers"] = len(after.workers)
        facts["ready_processes"] = after.ready_processes
        facts["new_dead_letters"] = after.dead_letters - before.dead_letters
        if after.finished_total is not None and before.finished_total is not None:
            facts["finished_by_its_own_count"] = after.finished_total - before.finished_total
        facts["model"] = (await client.model()).model
    return facts


async def _show(load: Load, live: Live) -> None:
    """What the run has come to, four times a second."""
    bars = Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        auto_refresh=False,
    )
    total = len(load.shots)
    accepted = bars.add_task("accepted", total=total)
    ended = bars.add_task("ended", total=total)
    while True:
        done = sum(shot.ended is not None for shot in load.shots)
        bars.update(accepted, completed=sum(shot.accepted is not None for shot in load.shots))
        bars.update(ended, completed=done)
        line = f"{done / max(load.now(), 0.1):.1f} ended/s"
        if load.samples:
            last = load.samples[-1]
            line += f", {last.depth} waiting, {last.in_flight} in flight"
        if refusals := sum(len(shot.refusals) for shot in load.shots):
            line += f", {refusals} refusals so far"
        live.update(Group(bars, Text(line, style="dim")))
        await asyncio.sleep(0.25)


def _table(report: dict[str, Any]) -> Table:
    account, times = report["account"], report["latency_seconds"]
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    names = ("submitted", "accepted", "refused", "completed", "failed", "cancelled", "expired")
    for name in names:
        if account[name] or name in ("submitted", "accepted", "completed", "failed"):
            table.add_row(name, str(account[name]))
    for name in ("lost", "unfinished", "duplicated", "ended_twice"):
        colour = "red" if account[name] else "green"
        table.add_row(name.replace("_", " "), f"[{colour}]{account[name]}[/{colour}]")
    for code, number in account["refusals_by_code"].items():
        table.add_row("refusals", f"{number} {code}")
    for name in ("submit", "end_to_end"):
        if figures := times.get(name):
            text = "   ".join(f"{key} {figures[key]:.2f} s" for key in ("p50", "p95", "p99", "max"))
            table.add_row(name.replace("_", " "), text)
    table.add_row("throughput", f"{report['throughput_per_second']:.2f} completed images/s")
    table.add_row("duration", f"{report['duration_seconds']:.1f} s")
    return table
