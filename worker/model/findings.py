"""What one part of a job has found, on its way through Redis to the part that merges it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.model.merging import Found


@dataclass(slots=True)
class Findings:
    """Of some passes over one picture."""

    found: list[Found]
    made_as: str
    """The weights, the size of the decoded picture and its tiles. Only findings that have it in
    common are about the same pixels."""
    decode_seconds: float
    infer_seconds: float

    def to_bytes(self) -> bytes:
        """As a NumPy archive without pickles. A detection of a box takes 24 bytes."""
        arrays: dict[str, Any] = {
            "made_as": np.array(self.made_as),
            "seconds": np.array([self.decode_seconds, self.infer_seconds]),
            "regions": np.array([one.region for one in self.found], np.int32).reshape(-1, 4),
            "counts": np.array([len(one) for one in self.found], np.int32),
        }
        for name in ("boxes", "scores", "classes", "corners", "keypoints"):
            parts = [getattr(one, name) for one in self.found]
            if parts and parts[0] is not None:
                arrays[name] = np.concatenate(parts)
        if self.found and self.found[0].outlines is not None:
            outlines = [outline for one in self.found for outline in one.outlines or ()]
            arrays["points"] = np.concatenate([np.zeros((0, 2), np.float32), *outlines])
            arrays["lengths"] = np.array([len(outline) for outline in outlines], np.int32)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def read(cls, data: bytes) -> Findings | None:
        """None if another version has written them in another form."""
        try:
            return cls.from_bytes(data)
        except (KeyError, ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
            return None

    @classmethod
    def from_bytes(cls, data: bytes) -> Findings:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = dict(archive)
        ends = np.cumsum(arrays["counts"])[:-1]
        columns = {
            name: np.split(arrays[name], ends)
            for name in ("boxes", "scores", "classes", "corners", "keypoints")
            if name in arrays
        }
        outlines: list[list[Any]] | None = None
        if "points" in arrays:
            each = np.split(arrays["points"], np.cumsum(arrays["lengths"])[:-1])
            each = each[: len(arrays["lengths"])]
            begins = [0, *ends.tolist()]
            outlines = [
                each[begin : begin + count]
                for begin, count in zip(begins, arrays["counts"].tolist(), strict=True)
            ]
        found = [
            Found(
                region=tuple(region),
                **{name: column[number] for name, column in columns.items()},
                outlines=None if outlines is None else outlines[number],
            )
            for number, region in enumerate(arrays["regions"].tolist())
        ]
        return cls(found, str(arrays["made_as"]), *arrays["seconds"].tolist())
