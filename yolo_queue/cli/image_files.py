"""Finds the images that the arguments of `detect` and `stress` name."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".heic", ".heif", ".hif", ".avif"}
)
"""Suffixes that a folder is searched for; a file that is named may have any."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """`name` is unique in a run and has no suffix; output files get it."""

    label: str
    name: str
    source: Path | bytes


class NoImages(Exception):
    """An argument matches no image; the message says which."""


def find(arguments: Iterable[str], *, recursive: bool = False) -> list[ImageFile]:
    """The images in the order of the arguments, each once; `-` is one image from standard input.
    Raises `NoImages`."""
    found: list[ImageFile] = []
    seen: set[Path] = set()
    names: set[str] = set()
    for argument in arguments:
        if argument == "-":
            if any(image.label == "-" for image in found):
                raise NoImages("`-` can be given once: standard input holds one image.")
            content = sys.stdin.buffer.read()
            if not content:
                raise NoImages("Standard input is empty; `-` reads one image from it.")
            found.append(ImageFile("-", _unique("stdin", names), content))
            continue
        for path in _expand(argument, recursive):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found.append(ImageFile(str(path), _unique(path.stem, names), path))
    return found


def _expand(argument: str, recursive: bool) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        pattern = "**/*" if recursive else "*"
        inside = sorted(p for p in path.glob(pattern) if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise NoImages(f"There is no image in the folder {argument}.")
        yield from inside
    elif path.is_file():
        yield path
    elif glob.has_magic(argument):
        # For quoted patterns, and shells that do not expand them; `**` descends into folders.
        matches = sorted(p for p in map(Path, glob.glob(argument, recursive=True)) if p.is_file())  # noqa: PTH207
        if not matches:
            raise NoImages(f"Nothing matches {argument}.")
        yield from matches
    else:
        raise NoImages(f"There is no file or folder {argument}.")


def _unique(stem: str, names: set[str]) -> str:
    """a, a-2, a-3: images of the same name from several folders get an output each."""
    name, number = stem, 1
    while name in names:
        number += 1
        name = f"{stem}-{number}"
    names.add(name)
    return name
