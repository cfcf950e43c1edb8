"""Writes the results of `detect` in the chosen form, into a folder or to stdout.

The service makes the COCO, YOLO and CSV of one image; this module combines them for many.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from yolo_queue import AsyncJob
from yolo_queue.cli.image_files import ImageFile


class Writer:
    """Takes results as they arrive. Without a folder it writes to stdout."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._indent = 1 if folder else None  # on stdout, one JSON object a line

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        raise NotImplementedError

    def close(self, names: dict[int, str]) -> None:
        """Write what concerns all images. `names`: the classes of the model, if known."""

    def _write(self, name: str, text: str) -> None:
        if self._folder:
            (self._folder / name).write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
            sys.stdout.flush()


class JsonWriter(Writer):
    """`NAME.json`: the job object without its picture."""

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        entry = {"file": image.label, **{k: v for k, v in job.data.items() if k != "image"}}
        self._write(f"{image.name}.json", json.dumps(entry, indent=self._indent) + "\n")


class YoloWriter(Writer):
    """`NAME.txt`, one line a detection, and in a folder `classes.txt`, the names in order."""

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        self._write(f"{image.name}.txt", await job.text("yolo"))

    def close(self, names: dict[int, str]) -> None:
        if self._folder and names:
            lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
            self._write("classes.txt", "\n".join(lines) + "\n")


class CsvWriter(Writer):
    """`detections.csv`: the service's columns, preceded by the file."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(folder)
        self._rows: list[list[str]] = []

    async def add(self, image: ImageFile, job: AsyncJob) -> None:
        header, *rows = csv.reader(io.StringIO(await job.text("csv")))
        if not self._rows:
            self._rows.append(["file", *header])
        self._rows += [[image.label, *row] for row in rows]

    def close(self, names: dict[int, str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._rows)
        self._write("detections.csv", text.getvalue())


class CocoWriter(Writer):
    """`coco.json`: one COCO data set with images, annotations and categories."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(folder)
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
        categories = sorted({**self._names, **names}.items())
        data = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": number, "name": name} for number, name in categories],
        }
        self._write("coco.json", json.dumps(data, indent=self._indent) + "\n")


WRITERS: dict[str, type[Writer]] = {
    "json": JsonWriter,
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "csv": CsvWriter,
}
