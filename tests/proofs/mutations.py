"""Takes each guard out of each script, one at a time: does a test fail?

    python -m tests.proofs.mutations --report FILE

Tries random histories first, then tests of states made for guards, then the exploration, then the
integration tests of the store. A guard that no test misses is listed as alive, and ends the command
with 1, unless `ONLY_SAVE_TIME` has it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.job import scripts
from tests.proofs.finders import FINDERS, what_fails
from tests.proofs.mutants import Mutant, mutants

LUA = Path(scripts.__file__).with_name("lua")
ONLY_SAVE_TIME = {
    "claim_more.lua `not heads[lane]` true": "reads a lane again; what joined has left it",
    "claim_more.lua `of_lane.left > 0` true": "goes on looking for messages when it has all",
    "claim_more.lua `at < wanted + SPARE` true": "looks at all messages of a lane",
    "claim_more.lua `#message > LONG_MESSAGE` false": "searches a picture for an id",
    "common.lua `left > before` true": "looks for leftovers in lanes that lost nothing",
    "recount.lua `stray[id] ~= owed` true": "writes what is there already",
}
"""Guards that change nothing but the time a script takes, and what it does without them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    found_by: str
    """Empty: it is alive."""
    because: str
    seconds: float


def judge(mutant: Mutant) -> Verdict:
    began = time.monotonic()
    with _folder_of(mutant) as folder:
        for finder in FINDERS:
            if because := what_fails(finder, folder):
                return Verdict(mutant, finder, because, time.monotonic() - began)
    return Verdict(mutant, "", "", time.monotonic() - began)


@contextmanager
def _folder_of(mutant: Mutant) -> Iterator[Path]:
    """All scripts, one of them the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lua")
        shutil.copytree(LUA, path)
        (path / f"{mutant.script}.lua").write_text(mutant.text)
        yield path


def all_mutants(only: str = "") -> list[Mutant]:
    return [
        mutant
        for path in sorted(LUA.glob("*.lua"))
        if only in ("", path.stem)
        for mutant in mutants(path.stem, path.read_text())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", default="", help="of this script alone, such as `finish`")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    for finder in FINDERS:
        if because := what_fails(finder, LUA):
            print(f"{finder} fail without any mutant: {because}")
            return 2
    chosen, verdicts = all_mutants(arguments.script), []
    with ThreadPoolExecutor(arguments.processes) as pool:
        for verdict in pool.map(judge, chosen):
            verdicts.append(verdict)
            found = verdict.found_by or "ALIVE"
            print(f"{verdict.seconds:5.1f} s  {found:17}  {verdict.mutant.name}")
            print(f"         {verdict.because[:150]}", flush=True)
    found = Counter(verdict.found_by for verdict in verdicts)
    unfound = [verdict.mutant for verdict in verdicts if not verdict.found_by]
    alive = [mutant for mutant in unfound if _saves(mutant) is None]
    saving = found.pop("", 0) - len(alive)
    by = ", ".join(f"{number} by {finder}" for finder, number in found.most_common())
    score = (
        f"{len(verdicts)} mutants: {found.total()} found ({by}), {saving} that only save time, "
        f"{len(alive)} alive."
    )
    print(score, *(mutant.name for mutant in alive), sep="\n    ")
    if arguments.report:
        arguments.report.write_text(f"{_HEAD}\n{score}\n\n" + "\n".join(_table(verdicts)) + "\n")
    return 1 if alive else 0


_HEAD = """# Every guard of every script, taken out

Made by `python -m tests.proofs.mutations --report docs/mutations.md`; [proofs.md](proofs.md) says
what it does. A line is a condition, or a term of one, that was replaced by true or false, and what
noticed.
"""


def _saves(mutant: Mutant) -> str | None:
    return ONLY_SAVE_TIME.get(f"{mutant.script}.lua `{mutant.guard}` {mutant.value}")


def _table(verdicts: list[Verdict]) -> Iterator[str]:
    yield "| guard | is | found by |"
    yield "| --- | --- | --- |"
    for verdict in verdicts:
        mutant = verdict.mutant
        guard = f"`{mutant.guard}`".replace("|", "\\|")
        without = _saves(mutant)
        found = verdict.found_by or (f"nothing: it {without}" if without else "**nothing**")
        yield f"| {mutant.script}.lua:{mutant.line} {guard} | {mutant.value} | {found} |"


if __name__ == "__main__":
    sys.exit(main())
