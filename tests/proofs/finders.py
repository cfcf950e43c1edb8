"""What can find a mutant, each in a process of its own: random histories, tests, the exploration.

python -m tests.proofs.finders histories FOLDER     # ends with 1 if something fails
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import Phase, Verbosity

from shared.job import scripts
from tests.proofs.explore import explore
from tests.proofs.server import proof_server, small
from tests.proofs.simulation import Wrong
from tests.proofs.state_machine import run_random_histories
from tests.proofs.timeline import Timeline

EXAMPLES, DEPTH, DRAIN_EVERY = 300, 4, 5
SECONDS = 300
"""A mutant that hangs is found, too."""
INTEGRATION = [
    f"tests/integration/test_{name}.py"
    for name in (
        *(
            "job_life",
            "parts",
            "lost_work",
            "claim_more",
            "queue_bounds",
            "queue_totals",
            "dead_letters",
        ),
        "clock_steps",
        *("redis_refuses", "webhook_outbox", "webhook_attempts", "webhook_sender"),
    )
]
_PROOF = ["-m", "tests.proofs.finders"]
_PYTEST = ["-m", "pytest", "-q", "-x", "-p", "tests.proofs.scripts_plugin"]
FINDERS = {
    "random histories": [*_PROOF, "histories"],
    "states made for them": [*_PYTEST, "tests/proofs/test_guards.py", "--scripts"],
    "exploration": [*_PROOF, "exploration"],
    "integration tests": [*_PYTEST, *INTEGRATION, "--scripts"],
}
"""What is run, less the folder of the scripts; the quickest first."""


def what_fails(finder: str, folder: Path) -> str:
    """What fails with the scripts in a folder; empty if nothing does."""
    command = [sys.executable, *FINDERS[finder], str(folder)]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"{finder} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    if not ended.returncode:
        return ""
    said = (ended.stdout + ended.stderr).strip().splitlines()
    return next((line for line in reversed(said) if "Wrong" in line or "Error" in line), said[-1])


def main() -> None:
    proof, folder = sys.argv[1:]
    scripts._LUA = Path(folder)
    with tempfile.TemporaryDirectory() as server, proof_server(Path(server)) as port:
        if proof == "histories":
            random_histories(port)
        else:
            exploration(port)


def random_histories(port: int) -> None:
    with Timeline(port, small()) as timeline:
        run_random_histories(
            timeline,
            EXAMPLES,
            derandomize=True,
            verbosity=Verbosity.quiet,
            phases=[Phase.generate],
        )


def exploration(port: int) -> None:
    for findings in explore([port], DEPTH, drain_every=DRAIN_EVERY):
        for history, wrong in findings.wrong:
            raise Wrong(f"{wrong} after {history}")


if __name__ == "__main__":
    main()
