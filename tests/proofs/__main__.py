"""Proves what the tests can only sample: random histories, then every interleaving to a depth.

python -m tests.proofs --examples 2000 --depth 7
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.proofs.explore import Findings, explore
from tests.proofs.server import proof_server, small
from tests.proofs.state_machine import STEPS, run_random_histories
from tests.proofs.timeline import Timeline


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="random histories")
    parser.add_argument("--depth", type=int, default=6, help="turns of each interleaving")
    parser.add_argument(
        "--drain-every", type=int, default=10, metavar="N", help="of N new states, drain one"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with ExitStack() as servers:
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory()))
        ports = [
            servers.enter_context(proof_server(folder / str(number)))
            for number in range(arguments.processes)
        ]
        random_histories(ports[0], arguments.examples)
        findings = interleavings(ports, arguments.depth, arguments.drain_every)
    for history, wrong in findings.wrong:
        print("WRONG", wrong, "after", list(history))
    return 1 if findings.wrong else 0


def random_histories(port: int, examples: int) -> None:
    """Ends with a traceback and the shortest history that fails."""
    began = time.monotonic()
    with Timeline(port, small()) as timeline:
        run_random_histories(timeline, examples)
        seconds = time.monotonic() - began
        print(
            f"{examples:,} random histories of up to {STEPS} steps, {timeline.calls:,} calls of "
            f"scripts: all as in the model ({seconds:.0f} s)\n",
            flush=True,
        )


def interleavings(ports: Sequence[int], depth: int, drain_every: int) -> Findings:
    began, findings = time.monotonic(), Findings()
    print("| depth | turns | different states | drained | slowest, s | so far, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for level, findings in enumerate(explore(ports, depth, drain_every=drain_every), 1):
        print(
            f"| {level} | {findings.turns:,} | {findings.states:,} | {findings.drained:,} | "
            f"{findings.slowest_drain_ms / 1000:.0f} | {time.monotonic() - began:.0f} |",
            flush=True,
        )
    return findings


if __name__ == "__main__":
    sys.exit(main())
