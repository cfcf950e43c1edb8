"""Explores every interleaving of a small service to a depth, on the real scripts.

After each turn the scripts are compared with the model. From every N-th new state on, one healthy
worker has to end every job, and then nothing may be left.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.proofs.drain import drain, nothing_left
from tests.proofs.server import small
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


def explore(ports: Sequence[int], depth: int, *, drain_every: int = 1) -> Iterator[Findings]:
    """Findings after each level of the depth, all of it so far. One process for each server; this
    one alone if there is one."""
    findings, seen = Findings(), set[bytes]()
    with _each(ports) as each, Timeline(ports[0], small(**BOUNDS)) as timeline:
        frontier = [Node(b"", World(Simulation(timeline)), ())]
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


@contextmanager
def _each(ports: Sequence[int]) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over several processes, each with a server of its own; or in this one."""
    if len(ports) == 1:
        _use(ports[0])
        with _timeline:
            yield map
        return
    fork = multiprocessing.get_context("fork")
    free = fork.SimpleQueue()
    for port in ports:
        free.put(port)
    with fork.Pool(len(ports), lambda: _use(free.get())) as pool:
        yield pool.imap_unordered


def _use(port: int) -> None:
    global _timeline
    _timeline = Timeline(port, small(**BOUNDS))


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
