"""Owns what `detect` writes: each result in the form asked for, into a folder or to stdout.

The service makes the COCO, YOLO and CSV of one image; here they are put together for many.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from yolo_queue import AsyncJob
from yolo_queue.cli.image_files import ImageFile

FORMS = ("json", "coco", "yolo", "csv")


class Writer(Protocol):
    """Takes results as they come; `close` writes what is about all of them."""

    async def add(self, image: ImageFile, job: AsyncJob) -> None: ...
    def close(self, names: dict[int, str]) -> None: ...


def writer(form: str, folder: Path | None) -> Writer:
    """Files in `folder`, or, without one, text on stdout."""
    kinds: dict[str, Callable[[Path | None], Writer]] = {
        "json": JsonWriter,
        "coco": CocoWriter,
        "yolo": YoloWriter,
        "csv": CsvWriter,
    }
    return kinds[form](folder)


class JsonWriter:
    """`NAME.json`, the job object without its picture; on stdout one object a line."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        entry = {"file": image.label, **{k: v for k, v in job.data.items() if k != "image"}}
        if self._folder:
            _write(self._folder / f"{image.name}.json", json.dumps(entry, indent=2) + "\n")
        else:
            _print(json.dumps(entry) + "\n")

    def close(self, names: dict[int, str]) -> None:
        pass


class YoloWriter:
    """`NAME.txt`, a line a detection, and `classes.txt`, the names in their order."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        text = await job.text("yolo")
        if self._folder:
            _write(self._folder / f"{image.name}.txt", text)
        else:
            _print(text)

    def close(self, names: dict[int, str]) -> None:
        if self._folder and names:
            lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
            _write(self._folder / "classes.txt", "\n".join(lines) + "\n")


class CsvWriter:
    """`detections.csv`: the service's columns behind one with the file."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._out = io.StringIO()
        self._table = csv.writer(self._out, lineterminator="\n")
        self._has_head = False

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        head, *rows = csv.reader(io.StringIO(await job.text("csv")))
        if not self._has_head:
            self._table.writerow(["file", *head])
            self._has_head = True
        self._table.writerows([image.label, *row] for row in rows)

    def close(self, names: dict[int, str]) -> None:
        if self._folder:
            _write(self._folder / "detections.csv", self._out.getvalue())
        else:
            _print(self._out.getvalue())


class CocoWriter:
    """`coco.json`: one COCO data set with images, annotations and categories."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        number = len(self._images) + 1
        entry = {"id": number, "file_name": image.label, "width": job.width, "height": job.height}
        self._images.append(entry)
        for found in json.loads(await job.text("coco")):
            self._names[found["category_id"]] = found.pop("category_name")
            found.update(id=len(self._annotations) + 1, image_id=number, iscrowd=0)
            self._annotations.append(found)

    def close(self, names: dict[int, str]) -> None:
        categories = {**self._names, **names}
        data = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": n, "name": name} for n, name in sorted(categories.items())],
        }
        if self._folder:
            _write(self._folder / "coco.json", json.dumps(data, indent=1) + "\n")
        else:
            _print(json.dumps(data) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
