"""`yolo-queue stress`: sends many large images at once, and accounts for every one of them."""

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
from rich.text import Text

from yolo_queue import ApiError, AsyncClient, QueueState
from yolo_queue.cli import stress_images, stress_report
from yolo_queue.cli.image_files import NoImages, find
from yolo_queue.cli.service_options import FAILED, ApiKey, fail, unusable
from yolo_queue.cli.stress_load import Load, Plan
from yolo_queue.cli.stress_summary import summary


def stress(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Images to send.")] = 100,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=1000, help="Uploads at a time.")
    ] = 16,
    rate: Annotated[
        float, typer.Option(min=0, help="Images a second; 0: as fast as the uploads go.")
    ] = 0,
    width: Annotated[int, typer.Option(min=32, help="Width of the drawn images in pixels.")] = 4000,
    height: Annotated[
        int, typer.Option(min=32, help="Height of the drawn images in pixels.")
    ] = 3000,
    folder: Annotated[
        Path | None,
        typer.Option(help="Send the images of this folder, in turn, instead of drawn ones."),
    ] = None,
    annotate: Annotated[bool, typer.Option(help="Ask for the annotated pictures.")] = True,
    retry_seconds: Annotated[
        float, typer.Option(min=0, help="How long to retry a refused image; 0: never.")
    ] = 120,
    patience_seconds: Annotated[
        float, typer.Option(min=1, help="Give up when no job has ended for so long.")
    ] = 120,
    out: Annotated[
        Path, typer.Option(help="Name of the report: .json and .html are added.")
    ] = Path("stress-report"),
    # Without YOLO_QUEUE_URL: a load test must not reach a service that its command does not name.
    url: Annotated[
        str, typer.Option("--url", help="The service to load.", rich_help_panel="Service")
    ] = "http://127.0.0.1:8000",
    api_key: ApiKey = "",
) -> None:
    """Send many large images at once and account for every one of them.

    \b
    Examples:
      yolo-queue stress                            100 images of 12 megapixels
      yolo-queue stress -n 1000 -c 64 --out big    writes big.json and big.html
      yolo-queue stress --rate 5 -n 300            five a second for a minute
      yolo-queue stress --folder photos --no-annotate

    Each image is accepted or refused. An accepted one is completed, failed,
    cancelled, expired, lost (the service does not know its id) or unfinished.
    A refused one is tried again, never before Retry-After.

    Exit status: 0 every accepted job ended exactly once, 1 some were lost,
    unfinished or duplicated, 2 wrong usage, or the service accepted nothing.
    """
    plan = Plan(count, concurrency, rate, retry_seconds, patience_seconds, annotate)
    console = Console(stderr=True)
    try:
        report = asyncio.run(_run(plan, url, api_key, folder, (width, height), console))
    except (ApiError, ValueError, NoImages, OSError) as error:
        raise (unusable(error, url) if isinstance(error, ApiError) else fail(str(error))) from None
    paths = stress_report.write(report, out)
    Console().print(summary(report))
    typer.echo(f"Report: {' and '.join(map(str, paths))}")
    account = report["account"]
    if not account["accepted"]:
        raise fail(
            f"The service accepted nothing: {account['refused_by_code']}",
            hint=f"`yolo-queue doctor --url {url}` finds out why.",
        )
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
    """The workers and the model, and what the service itself counted during the run."""
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
    """Update the progress bars four times a second."""
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
            line += f", {refusals} refusals"
        live.update(Group(bars, Text(line, style="dim")))
        await asyncio.sleep(0.25)
