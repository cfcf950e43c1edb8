"""`yolo-queue detect`: sends images, and writes their detections and annotated pictures."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from yolo_queue import ApiError, AsyncClient, AsyncJob, Outcome, Parameters
from yolo_queue.cli.detection_files import WRITERS, Writer
from yolo_queue.cli.image_files import ImageFile, NoImages, find
from yolo_queue.cli.service_options import DEFAULT_URL, FAILED, ApiKey, Url, fail, unusable

TABLE_ROWS = 40
"""With more images than this, the table shows the failed ones alone."""

Form = StrEnum("Form", {name: name for name in WRITERS})  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Row:
    image: ImageFile
    job: AsyncJob | None
    error: Exception | None


def detect(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|GLOB|-...", help="`-` is one image from standard input."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; created if necessary.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Form of the results; json by default."),
    ] = None,
    save_images: Annotated[
        bool, typer.Option(help="Also write the annotated pictures, NAME.jpg, to --out.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option(help="Also search the folders inside a folder.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Name of the model; the default model if there is none.")
    ] = "",
    conf: Annotated[float | None, typer.Option(help="Minimum confidence, 0-1.")] = None,
    iou: Annotated[
        float | None, typer.Option(help="IoU above which overlapping boxes are merged, 0-1.")
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option(help="Longer side of the network's input in pixels.")
    ] = None,
    max_det: Annotated[
        int | None, typer.Option(help="Maximum number of detections per image.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Class numbers to keep, e.g. 0,2,5.")] = "",
    tile: Annotated[
        str,
        typer.Option(
            metavar="SIZE|auto",
            help="Cut large pictures into tiles of so many pixels, to find small things.",
        ),
    ] = "",
    overlap: Annotated[
        float | None, typer.Option(help="Share of a tile that its neighbours have as well, 0-0.5.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Images at a time.")] = 8,
    retry_seconds: Annotated[
        float, typer.Option(min=0, help="How long to retry while the service is busy.")
    ] = 600,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Detect objects in images; write the results to --out or to stdout.

    \b
    Examples:
      yolo-queue detect street.jpg
      yolo-queue detect photos/ --out results --save-images
      yolo-queue detect aerial.jpg --tile auto
      yolo-queue detect 'data/**/*.png' --format coco --out labels
      yolo-queue detect *.jpg --format csv > detections.csv
      curl -s https://example.org/a.jpg | yolo-queue detect - --format json

    \b
    json  NAME.json each, the job object    yolo  NAME.txt each, and classes.txt
    csv   one detections.csv                coco  one coco.json

    With --format and without --out, the results go to stdout and the summary
    to stderr.

    Exit status: 0 every image has a result, 1 some failed, 2 wrong usage or
    the service cannot be used.
    """
    if save_images and not out:
        raise fail("--save-images needs --out, the folder to write to.")
    try:
        chosen = [int(number) for number in classes.split(",") if number.strip()]
    except ValueError:
        raise fail(f"--classes takes numbers, e.g. 0,2,5, not {classes!r}.") from None
    try:
        files = find(images, recursive=recursive)
        if out:
            out.mkdir(parents=True, exist_ok=True)
    except (NoImages, OSError) as error:
        raise fail(str(error)) from None
    options: dict[str, Any] = {"conf": conf, "iou": iou, "imgsz": imgsz, "max_det": max_det}
    options |= {"annotate": save_images, "classes": chosen or None, "model": model or None}
    options |= {"tile": tile or None, "overlap": overlap}
    parameters = cast(Parameters, {name: v for name, v in options.items() if v is not None})
    sink = WRITERS[form or "json"](out) if out or form else None
    try:
        rows = asyncio.run(
            _run(files, parameters, sink, out, url, api_key, concurrency, retry_seconds)
        )
    except (ApiError, ValueError) as error:
        raise unusable(error, url) from None
    Console(stderr=sink is not None and out is None).print(_table(rows))
    if any(row.error for row in rows):
        raise typer.Exit(FAILED)


async def _run(
    files: list[ImageFile],
    parameters: Parameters,
    sink: Writer | None,
    out: Path | None,
    url: str,
    api_key: str,
    concurrency: int,
    retry_seconds: float,
) -> list[Row]:
    rows = []
    # Fail at once, without retries, if the service does not answer, the key is wrong, or there is
    # no such model.
    async with AsyncClient(url, api_key or None, retry_seconds=0) as probe:
        await (probe.model(model) if (model := parameters.get("model", "")) else probe.queue())
    async with AsyncClient(url, api_key or None) as client:
        with _progress() as progress:
            bar = progress.add_task("detecting", total=len(files))
            outcomes = client.map(
                [image.source for image in files],
                concurrency=concurrency,
                retry_seconds=retry_seconds,
                **parameters,
            )
            async for outcome in outcomes:
                image = files[outcome.index]
                error = await _save(image, outcome, sink, out)
                rows.append(Row(image, outcome.job, error))
                progress.advance(bar)
        if sink:
            sink.close(await _class_names(client, parameters.get("model", "")))
    return rows


async def _save(
    image: ImageFile, outcome: Outcome[AsyncJob], sink: Writer | None, out: Path | None
) -> Exception | None:
    """Write one result as soon as it arrives, so that an interrupted run keeps what it has."""
    try:
        job = outcome.result()
        if sink:
            await sink.add(image, job)
        if out and job.data.get("image"):
            job.save_image(out / f"{image.name}.jpg")
    except (ApiError, OSError, TypeError, ValueError) as error:
        return error
    return None


async def _class_names(client: AsyncClient, model: str) -> dict[int, str]:
    try:
        return dict((await client.model(model)).names)
    except ApiError:
        return {}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _table(rows: list[Row]) -> Table:
    failed = [row for row in rows if row.error]
    total: Counter[str] = Counter()
    table = Table("image", "size", "found", "ms", title_justify="left")
    for row in rows if len(rows) <= TABLE_ROWS else failed[:TABLE_ROWS]:
        label = escape(row.image.label)
        if row.error or row.job is None:
            table.add_row(label, "", f"[red]{escape(str(row.error))}[/red]", "")
        else:
            milliseconds = f"{row.job.timings_ms.get('total', 0):.0f}"
            size = f"{row.job.width}x{row.job.height}"
            table.add_row(label, size, _counts(_classes(row.job)), milliseconds)
    for row in rows:
        if row.job and not row.error:
            total += _classes(row.job)
    table.caption = (
        f"{len(rows) - len(failed)} of {len(rows)} images answered"
        f"{f', {len(failed)} failed' if failed else ''}: {_counts(total)}"
    )
    return table


def _classes(job: AsyncJob) -> Counter[str]:
    return Counter(found.name for found in job.detections)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {escape(name)}" for name, n in counts.most_common()) or "nothing"
