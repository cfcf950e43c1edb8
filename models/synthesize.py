"""Draws a data set: pictures, YOLO labels and the data file for training.

    python models/synthesize.py --out codes/train --count 8000 --size 416 --photos PHOTOS

The same arguments give the same pictures. `--photos` is any folder of JPEG or PNG photographs
that show no codes; without it the backgrounds are drawn.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import cv2
import heldout_symbols
import numpy as np
import scene
import symbols

# Width to height: most cameras and screens, upright and lying.
_SHAPES = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (0.5625, 1.0), (1.0, 0.5625))
_SHAPE_ODDS = (0.5, 0.15, 0.15, 0.1, 0.1)
_SOURCES = {"train": symbols.draw, "heldout": heldout_symbols.draw}


def main() -> None:
    """Read the command line and draw the data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument("--count", type=int, default=1000, help="how many pictures")
    parser.add_argument("--size", type=int, default=640, help="longer side of a picture, in px")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, help="folder of photographs without codes")
    parser.add_argument("--empty", type=float, default=0.1, help="part of pictures without codes")
    parser.add_argument("--symbols", choices=_SOURCES, default="train", help="who draws the codes")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    write_data_set(**vars(arguments))


def write_data_set(
    out: Path,
    count: int,
    size: int,
    seed: int,
    photos: Path | None,
    empty: float,
    symbols: str,
    workers: int,
) -> None:
    """Draw `count` pictures into `out`/images, their labels into `out`/labels."""
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    setup = (out, size, seed, photos, empty, symbols)
    # Spawned rather than forked: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_prepare, initargs=setup) as pool:
        for done, _ in enumerate(pool.imap_unordered(_write_picture, range(count), 16), 1):
            if done % 1000 == 0 or done == count:
                print(f"{done}/{count} pictures in {out}", flush=True)


def load_photos(folder: Path | None, longest: int = 1280) -> list[np.ndarray]:
    """Load every JPEG and PNG of `folder`, in order of name, shrunk to `longest` px."""
    if folder is None:
        return []
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            continue
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if photo is None:
            continue
        scale = min(1.0, longest / max(photo.shape[:2]))
        photos.append(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return photos


class _Workplace:
    """What one worker process keeps between pictures."""

    out: Path
    size: int
    seed: int
    photos: Sequence[np.ndarray]
    empty: float
    draw: scene.Draw


def _prepare(
    out: Path, size: int, seed: int, photos: Path | None, empty: float, source: str
) -> None:
    cv2.setNumThreads(1)
    _Workplace.out, _Workplace.size, _Workplace.seed = out, size, seed
    _Workplace.photos, _Workplace.empty = load_photos(photos), empty
    _Workplace.draw = staticmethod(_SOURCES[source])


def _write_picture(index: int) -> None:
    # One generator per picture: the result depends neither on the order nor on the workers.
    rng = np.random.default_rng([_Workplace.seed, index])
    shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHAPE_ODDS))]
    width, height = (round(_Workplace.size * part) for part in shape)
    made = scene.compose(height, width, rng, _Workplace.draw, _Workplace.photos, _Workplace.empty)
    height, width = made.image.shape[:2]  # a code drawn alone has its own shape
    lines = []
    for number, x1, y1, x2, y2 in made.boxes:
        middle = f"{(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f}"
        lines.append(f"{number} {middle} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n")
    name = f"{index:06d}"
    (_Workplace.out / "labels" / f"{name}.txt").write_text("".join(lines))
    path = _Workplace.out / "images" / f"{name}.jpg"
    cv2.imwrite(str(path), made.image, [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
