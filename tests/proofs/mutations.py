"""Takes each guard out of each script, one at a time: does a test fail?

    python -m tests.proofs.mutations --report FILE

Tries the model-based tests first, then the exploration, then the integration tests of the store. A
guard that no test misses is listed as alive.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hypothesis import Phase, Verbosity

from shared.job import scripts
from tests.proofs.explore import explore
from tests.proofs.mutants import Mutant, mutants
from tests.proofs.server import proof_server, small
from tests.proofs.state_machine import run_random_histories
from tests.proofs.timeline import Timeline

LUA = Path(scripts.__file__).with_name("lua")
INTEGRATION = [
    f"tests/integration/test_{name}.py"
    for name in (
        *("job_life", "lost_work", "claim_more", "queue_bounds", "queue_totals", "dead_letters"),
        *("redis_refuses", "webhook_outbox", "webhook_attempts", "webhook_sender"),
    )
]
EXAMPLES, DEPTH = 300, 4
PROOF_SECONDS, PYTEST_SECONDS = 300, 300
"""A mutant that hangs is found, too."""


Finder = Callable[[Path], bool]
"""Whether something fails with the scripts in a folder."""


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    found_by: str
    """Empty: it is alive."""
    seconds: float


def judge(mutant: Mutant, finders: Mapping[str, Finder]) -> Verdict:
    began = time.monotonic()
    with _folder_of(mutant) as folder:
        for name, finds in finders.items():
            if finds(folder):
                return Verdict(mutant, name, time.monotonic() - began)
    return Verdict(mutant, "", time.monotonic() - began)


@contextmanager
def _folder_of(mutant: Mutant) -> Iterator[Path]:
    """All scripts, one of them the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lua")
        shutil.copytree(LUA, path)
        (path / f"{mutant.script}.lua").write_text(mutant.text)
        yield path


def _in_process(proof: Callable[[Path, int], None]) -> Finder:
    """Whether a proof fails, in a process of its own: it replaces the scripts."""

    def finds(folder: Path) -> bool:
        with proof_server(folder.with_name("server")) as port:
            fork = multiprocessing.get_context("fork")
            process = fork.Process(target=proof, args=(folder, port))
            process.start()
            process.join(PROOF_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
        return process.exitcode != 0

    return finds


def _random_histories(folder: Path, port: int) -> None:
    scripts._LUA = folder
    with Timeline(port, small()) as timeline:
        run_random_histories(
            timeline,
            EXAMPLES,
            derandomize=True,
            verbosity=Verbosity.quiet,
            phases=[Phase.generate],
        )


def _exploration(folder: Path, port: int) -> None:
    scripts._LUA = folder
    for findings in explore([port], DEPTH, drain_every=5):
        if findings.wrong:
            sys.exit(1)


def _integration_tests(folder: Path) -> bool:
    plugin = ["-p", "tests.proofs.scripts_plugin", "--scripts", str(folder)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *plugin, *INTEGRATION]
    try:
        ended = subprocess.run(
            command, capture_output=True, timeout=PYTEST_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return True
    if ended not in (0, 1):
        raise RuntimeError(f"pytest ended with {ended}")
    return ended == 1


FINDERS: dict[str, Finder] = {
    "random histories": _in_process(_random_histories),
    "exploration": _in_process(_exploration),
    "integration tests": _integration_tests,
}


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
    for name, finds in FINDERS.items():
        with _folder_of(Mutant("read", 0, "", "", (LUA / "read.lua").read_text())) as folder:
            if finds(folder):
                print(f"{name}: fail without any mutant")
                return 2
    chosen, verdicts = all_mutants(arguments.script), []
    with ThreadPoolExecutor(arguments.processes) as pool:
        for verdict in pool.map(partial(judge, finders=FINDERS), chosen):
            verdicts.append(verdict)
            found = verdict.found_by or "ALIVE"
            print(f"{verdict.seconds:5.1f} s  {found:17}  {verdict.mutant.name}", flush=True)
    found = Counter(verdict.found_by for verdict in verdicts)
    alive = found.pop("", 0)
    print(f"{len(verdicts)} mutants, {alive} alive; found by {dict(found)}")
    if arguments.report:
        arguments.report.write_text("\n".join(_table(verdicts)) + "\n")
    return 1 if alive else 0


def _table(verdicts: list[Verdict]) -> Iterator[str]:
    yield "| guard | is | found by |"
    yield "| --- | --- | --- |"
    for verdict in verdicts:
        mutant = verdict.mutant
        guard = f"`{mutant.guard}`".replace("|", "\\|")
        yield (
            f"| {mutant.script}.lua:{mutant.line} {guard} | {mutant.value} | "
            f"{verdict.found_by or '**nothing**'} |"
        )


if __name__ == "__main__":
    sys.exit(main())
