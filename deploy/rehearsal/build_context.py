"""Lists the build context: the files of a folder that .dockerignore lets a COPY see."""

from __future__ import annotations

import re
from pathlib import Path


class BuildContext:
    """A folder as the builder sees it. Patterns as Docker reads them: the last match decides."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignore = root / ".dockerignore"
        lines = ignore.read_text().splitlines() if ignore.exists() else []
        wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        self._rules = [
            (line.startswith("!"), _pattern(line.removeprefix("!").strip("/"))) for line in wanted
        ]

    def sends(self, path: Path) -> bool:
        """Whether the file at this path, relative to the root, is part of the context."""
        ignored = False
        for readmits, pattern in self._rules:
            if pattern.match(path.as_posix()):
                ignored = not readmits
        return not ignored

    def files(self, source: str) -> list[Path]:
        """The files that `COPY source` copies, relative to the root; none if it does not exist."""
        top = self.root / source
        candidates = [top] if top.is_file() else [p for p in top.rglob("*") if p.is_file()]
        relative = (path.relative_to(self.root) for path in candidates)
        return sorted(path for path in relative if self.sends(path))


def _pattern(text: str) -> re.Pattern[str]:
    """Go's filepath.Match plus `**`; what matches a folder matches all that is in it."""
    out = ""
    for part in re.split(r"(\*\*/?|\*|\?)", text):
        out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(out + "(?:/.*)?$")
