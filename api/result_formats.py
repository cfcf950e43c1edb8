"""Renders a result as COCO, YOLO labels or CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Literal

Format = Literal["json", "coco", "yolo", "csv"]

MEDIA_TYPES: dict[str, str] = {
    "coco": "application/json",
    "yolo": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
}


def render(form: str, task_id: str, result: dict[str, Any]) -> str:
    """A completed result as text in one of `MEDIA_TYPES`."""
    return {"coco": _coco, "yolo": _yolo, "csv": _csv}[form](task_id, result)


def corners(detection: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """(left, top, right, bottom) in pixels, around all corners of an oriented box."""
    box = detection.get("box")
    if not box:
        return None
    xs = [value for name, value in box.items() if name.startswith("x")]
    ys = [value for name, value in box.items() if name.startswith("y")]
    return min(xs), min(ys), max(xs), max(ys)


def _coco(task_id: str, result: dict[str, Any]) -> str:
    """COCO results: one entry per detection, `bbox` as [x, y, width, height] in pixels. Category
    ids are the model's class numbers."""
    entries = []
    for detection in result["detections"]:
        entry: dict[str, Any] = {
            "image_id": task_id,
            "category_id": detection["class"],
            "category_name": detection["name"],
            "score": detection.get("confidence"),
        }
        if found := corners(detection):
            left, top, right, bottom = found
            entry["bbox"] = [round(v, 3) for v in (left, top, right - left, bottom - top)]
            entry["area"] = round((right - left) * (bottom - top), 3)
        if segments := detection.get("segments"):
            entry["segmentation"] = [
                [value for pair in zip(segments["x"], segments["y"], strict=True) for value in pair]
            ]
        if points := detection.get("keypoints"):
            visible = points.get("visible") or [1.0] * len(points["x"])
            triples = zip(points["x"], points["y"], visible, strict=True)
            entry["keypoints"] = [
                value for x, y, v in triples for value in (x, y, 2 if v > 0.5 else 0)
            ]
        entries.append(entry)
    return json.dumps(entries)


def _yolo(task_id: str, result: dict[str, Any]) -> str:
    """YOLO labels with confidence: `class x_centre y_centre width height confidence`, in 0-1. An
    oriented box has its four corners instead, as in YOLO-OBB labels."""
    width, height = result["width"], result["height"]
    lines = []
    for detection in result["detections"]:
        box = detection.get("box")
        if box and "x3" in box:
            numbers = [
                value / (width if name.startswith("x") else height)
                for name, value in sorted(box.items(), key=lambda item: (item[0][1:], item[0][0]))
            ]
        elif found := corners(detection):
            left, top, right, bottom = found
            numbers = [
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            ]
        else:
            numbers = []
        fields = [str(detection["class"]), *(f"{number:.6f}" for number in numbers)]
        lines.append(" ".join([*fields, f"{detection.get('confidence') or 0:.5f}"]))
    return "".join(line + "\n" for line in lines)


def _csv(task_id: str, result: dict[str, Any]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["task_id", "class", "name", "confidence", "x1", "y1", "x2", "y2"])
    for detection in result["detections"]:
        box = corners(detection) or ("", "", "", "")
        table.writerow(
            [task_id, detection["class"], detection["name"], detection.get("confidence"), *box]
        )
    return out.getvalue()
