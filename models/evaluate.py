"""Measures the numbers of the model card: mAP on a held-out set, false alarms on photographs.

python models/evaluate.py models/demo.pt --data codes/heldout --photos PHOTOS
"""

import argparse
from pathlib import Path

from symbols import NAMES
from ultralytics import YOLO

_PICTURES = (".jpg", ".jpeg", ".png")


def main() -> None:
    """Read the command line and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, help="folder that synthesize.py drew")
    parser.add_argument("--photos", type=Path, help="folder of photographs without codes")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--confidence", type=float, default=0.25)
    arguments = parser.parse_args()
    model = YOLO(arguments.model)
    if arguments.data:
        report_precision(model, arguments.data, arguments.size)
    if arguments.photos:
        report_false_alarms(model, arguments.photos, arguments.size, arguments.confidence)


def report_precision(model: YOLO, folder: Path, size: int) -> None:
    """Print mAP50 and mAP50-95, overall and per class, of `model` on the pictures of `folder`."""
    root = folder.resolve()
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(NAMES))
    data_file = root / "heldout.yaml"
    data_file.write_text(f"path: {root}\ntrain: images\nval: images\nnames:\n{names}\n")
    metrics = model.val(
        data=str(data_file), imgsz=size, device="cpu", workers=1, plots=False, verbose=False
    )
    print(f"{'class':>14} {'precision':>10} {'recall':>7} {'mAP50':>6} {'mAP50-95':>9}")
    rows = [("all", metrics.box.mean_results())]
    rows += [
        (NAMES[number], metrics.box.class_result(place))
        for place, number in enumerate(metrics.box.ap_class_index)
    ]
    for name, (precision, recall, ap50, ap) in rows:
        print(f"{name:>14} {precision:10.3f} {recall:7.3f} {ap50:6.3f} {ap:9.3f}")


def report_false_alarms(model: YOLO, folder: Path, size: int, confidence: float) -> None:
    """Print every detection of `model` on photographs that show no code."""
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    alarms = 0
    for photo in photos:
        (result,) = model.predict(photo, imgsz=size, conf=confidence, device="cpu", verbose=False)
        for number, score in zip(result.boxes.cls, result.boxes.conf, strict=True):
            print(f"  {photo.name}: {NAMES[int(number)]} {float(score):.2f}")
        alarms += len(result.boxes)
    per_photo = alarms / max(1, len(photos))
    print(f"{alarms} false alarms on {len(photos)} photographs, {per_photo:.3f} each")


if __name__ == "__main__":
    main()
