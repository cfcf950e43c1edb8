"""Explores every interleaving of a small service to a depth, on the real scripts.

After each turn the scripts are compared with the model. From every N-th new state on, one healthy
worker has to end every job, and then nothing may be left.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from shared.settings import Settings
from tests.proofs.drain import drain, nothing_left
from tests.proofs.server import proof_server
from tests.proofs.simulation import Simulation, Wrong
from tests.proofs.timeline import Timeline
from tests.proofs.world import Turn, World

BOUNDS: dict[str, Any] = {"max_attempts": 2, "lease_seconds": 4, "max_queue_seconds": 30}
"""So that dead letters, lost leases and overdue jobs are not far away."""
DRAIN_MS = 60_000
"""Two leases until a vanished message is noticed, and what a lost worker takes, several times."""
CHUNK = 64

History = tuple[Turn, ...]


@dataclass
class Findings:
    """`wrong`: histories with what is wrong in their last turn, or after it."""

    turns: int = 0
    states: int = 0
    drained: int = 0
    slowest_drain_ms: int = 0
    wrong: list[tuple[History, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Node:
    """A state that nobody has been in before, and how it was reached."""

    digest: bytes
    world: World
    history: History


def explore(
    timeline: Timeline, depth: int, *, drain_every: int = 1, processes: int = 1
) -> Iterator[Findings]:
    """Findings after each level of the depth, all of it so far."""
    findings, seen = Findings(), set[bytes]()
    frontier = [Node(b"", World(Simulation(timeline)), ())]
    with _each(timeline, processes) as each:
        for _ in range(depth):
            chunks = [frontier[at : at + CHUNK] for at in range(0, len(frontier), CHUNK)]
            frontier = []
            for turns, nodes, wrong in each(_expand, chunks):
                findings.turns += turns
                findings.wrong += wrong
                for node in nodes:
                    if node.digest not in seen:
                        seen.add(node.digest)
                        frontier.append(node)
            findings.states = len(seen)
            for took, wrong in each(_drain, frontier[::drain_every]):
                findings.drained += 1
                findings.slowest_drain_ms = max(findings.slowest_drain_ms, took)
                findings.wrong += wrong
            yield findings
            if findings.wrong:
                return


_timeline: Timeline


def _use(timeline: Timeline) -> None:
    global _timeline
    _timeline = timeline


@contextmanager
def _each(timeline: Timeline, processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over several processes, each with a server of its own; or over this one alone."""
    if processes == 1:
        _use(timeline)
        yield map
        return
    with multiprocessing.get_context("fork").Pool(processes, _start, (timeline.settings,)) as pool:
        yield pool.imap_unordered


def _start(settings: Settings) -> None:
    """In a process of the pool, as long as it lives."""
    server = ExitStack()
    folder = server.enter_context(tempfile.TemporaryDirectory())
    _use(server.enter_context(proof_server(Path(folder), settings)))
    Finalize(server, server.close, exitpriority=10)


def _expand(nodes: Sequence[Node]) -> tuple[int, list[Node], list[tuple[History, str]]]:
    """Take every turn of every state; returns how many there were, and where they lead."""
    turns, found, wrong = 0, dict[bytes, Node](), []
    for node in nodes:
        node.world.simulation.use(_timeline)
        for turn in node.world.turns():
            turns += 1
            history = (*node.history, turn)
            try:
                world = node.world.after(turn)
            except Wrong as error:
                wrong.append((history, str(error)))
                continue
            digest = hashlib.blake2b(repr(world.key()).encode(), digest_size=16).digest()
            found.setdefault(digest, Node(digest, world, history))
    return turns, list(found.values()), wrong


def _drain(node: Node) -> tuple[int, list[tuple[History, str]]]:
    node.world.simulation.use(_timeline)
    simulation = node.world.simulation.fork()
    try:
        took = drain(simulation, within_ms=DRAIN_MS)
        nothing_left(simulation)
    except Wrong as error:
        return 0, [(node.history, str(error))]
    return took, []


def replay(timeline: Timeline, history: Sequence[Turn]) -> World:
    """The world after these turns, for a regression test."""
    world = World(Simulation(timeline))
    for turn in history:
        world = world.after(turn)
    return world
