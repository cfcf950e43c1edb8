"""Proves what the tests can only sample: random histories, then every interleaving to a depth.

python -m tests.proofs --examples 2000 --depth 7
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.proofs.explore import BOUNDS, Findings, explore
from tests.proofs.server import proof_server, small
from tests.proofs.state_machine import STEPS, run_random_histories


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="random histories")
    parser.add_argument("--depth", type=int, default=6, help="turns of each interleaving")
    parser.add_argument(
        "--drain-every", type=int, default=10, metavar="N", help="of N new states, drain one"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    random_histories(arguments.examples)
    return 1 if interleavings(arguments).wrong else 0


def random_histories(examples: int) -> None:
    """Ends with a traceback and the shortest history that fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, proof_server(Path(folder), small()) as timeline:
        run_random_histories(timeline, examples)
        seconds = time.monotonic() - began
        print(
            f"{examples:,} random histories of up to {STEPS} steps, {timeline.calls:,} calls of "
            f"scripts: all as in the model ({seconds:.0f} s)\n",
            flush=True,
        )


def interleavings(arguments: argparse.Namespace) -> Findings:
    began, findings = time.monotonic(), Findings()
    print("| depth | turns | different states | drained | slowest, s | so far, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory() as folder,
        proof_server(Path(folder), small(**BOUNDS)) as timeline,
    ):
        levels = explore(
            timeline,
            arguments.depth,
            drain_every=arguments.drain_every,
            processes=arguments.processes,
        )
        for depth, findings in enumerate(levels, 1):
            print(
                f"| {depth} | {findings.turns:,} | {findings.states:,} | {findings.drained:,} | "
                f"{findings.slowest_drain_ms / 1000:.0f} | {time.monotonic() - began:.0f} |",
                flush=True,
            )
    for history, wrong in findings.wrong:
        print("WRONG", wrong, "after", list(history))
    return findings


if __name__ == "__main__":
    sys.exit(main())
