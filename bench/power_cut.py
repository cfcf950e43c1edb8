"""Measures what each durability setting loses when Redis is killed, or its machine loses power.

    python -m bench.power_cut                    # as root, on Linux with libfuse; half an hour
    python -m bench.power_cut --cuts 5 --only "make run, power cut"

Real jobs go through a real gateway to a Redis on a disk whose power can be cut: what was not synced
is gone (tests/support/power_cut_fs.py). At a random moment it is; Redis starts on what is left, and
the gateway is asked for every job that it had accepted. Gateway, worker and sentinels run on, as
on other machines. The detector only sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench.report import save
from tests.support.images import noise_jpeg
from tests.support.job_ledger import Ledger, Loss
from tests.support.power_cut import lacking, why_not
from tests.support.redis_machine import Durability, RedisMachine
from tests.support.sentinel_machines import SentinelMachines
from tests.support.stack import Stack

REWRITE_SECONDS = 0.2
SLOW_SYNC_MS = 300
WATCHED = Durability("no", watched=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. `share`: of the number of cuts that is asked for."""

    name: str
    durability: Durability
    share: float = 1
    kill: bool = False
    rewrites: bool = False
    sentinel: str = ""
    """Which server loses power behind Sentinel: `primary` or `both`."""


CASES = (
    Case("make run, power cut", WATCHED),
    Case("make run, power cut while the file is rewritten", WATCHED, 0.5, rewrites=True),
    Case(
        f"make run, power cut, a sync takes {SLOW_SYNC_MS} ms",
        Durability("no", watched=True, sync_ms=SLOW_SYNC_MS),
        0.5,
    ),
    Case("make run, killed", WATCHED, 0.34, kill=True),
    Case("always, power cut", Durability("always")),
    Case("always, power cut while the file is rewritten", Durability("always"), 0.5, rewrites=True),
    Case("always, killed", Durability("always"), 0.34, kill=True),
    Case("everysec, power cut", Durability("everysec")),
    Case(
        f"everysec, power cut, a sync takes {SLOW_SYNC_MS} ms",
        Durability("everysec", sync_ms=SLOW_SYNC_MS),
        0.5,
    ),
    Case(
        f"everysec, killed, a sync takes {SLOW_SYNC_MS} ms",
        Durability("everysec", sync_ms=SLOW_SYNC_MS),
        0.5,
        kill=True,
    ),
    Case("no, power cut, nothing written back", Durability("no"), 0.17),
    Case("no, killed", Durability("no"), 0.34, kill=True),
    Case("Sentinel, always, primary cut, fail-over", Durability("always"), 0.5, sentinel="primary"),
    Case("Sentinel, always, both cut at once", Durability("always"), 0.34, sentinel="both"),
    Case("Sentinel, everysec, both cut at once", Durability("everysec"), 0.34, sentinel="both"),
)


@dataclass(frozen=True, slots=True)
class Site:
    """Where Redis runs, and how it has an accident."""

    redis_url: str
    port: int
    prepare: Callable[[], None]
    accident: Callable[[], None]
    recover: Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="the cases whose name has this")
    arguments = parser.parse_args()
    if reason := why_not() or lacking():
        parser.error(reason)
    cases = [case for case in CASES if arguments.only in case.name]
    figures: dict[str, Any] = {}
    for case in cases:
        cuts = max(1, round(arguments.cuts * case.share))
        figures[case.name] = measure(case, cuts, random.Random(arguments.seed))
        print(row(case.name, figures[case.name]), flush=True)
    save("power_cut", figures, table(figures))


def measure(case: Case, cuts: int, source: random.Random) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        site_of(case, Path(folder, "machine")) as site,
        Stack(Path(folder), REDIS_URL=site.redis_url, SIMULATED_MS="5") as stack,
    ):
        stack.start_gateway()
        stack.start_worker(app="tests.support.simulated_app")
        stack.wait_ready(processes=2)
        return asyncio.run(repeat(case, site, stack.port, cuts, source))


@contextmanager
def site_of(case: Case, folder: Path) -> Iterator[Site]:
    if case.sentinel:
        with SentinelMachines(folder, case.durability.appendfsync) as machines:
            accident, recover = {
                "primary": (machines.cut_primary, machines.fail_over),
                "both": (machines.cut_both, machines.power_on),
            }[case.sentinel]
            yield Site(machines.url, 0, machines.prepare, accident, recover)
    else:
        with RedisMachine(folder, case.durability) as machine:
            accident, recover = (
                (machine.kill, machine.start)
                if case.kill
                else (machine.cut_power, machine.power_on)
            )
            yield Site(machine.url, machine.port, lambda: None, accident, recover)


async def repeat(
    case: Case, site: Site, gateway: int, cuts: int, source: random.Random
) -> dict[str, Any]:
    small, large = noise_jpeg(64, 48, 4_000), noise_jpeg(640, 480, 300_000)
    losses: list[Loss] = []
    for _ in range(cuts):
        site.prepare()
        # One in ten is larger than what one write to the file system takes.
        ledger = Ledger(gateway, [*[small] * 9, large], source)
        losses.append(await one_accident(case, site, ledger))
    # Nothing is left half stored: every job of the last life ends in the next.
    assert await ledger.unfinished() == []
    return {"cuts": cuts, **summary(losses), "each": [asdict(loss) for loss in losses]}


async def one_accident(case: Case, site: Site, ledger: Ledger) -> Loss:
    await ledger.wait_accepting()
    accident = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ledger.submit(accident))
        if case.rewrites:
            tasks.create_task(rewrite(site.port, accident))
        await asyncio.sleep(ledger.source.uniform(1.5, 3.5))
        accident.set()
        accident_at = time.monotonic()
        site.accident()
        await asyncio.to_thread(site.recover)
    return await ledger.losses(accident_at)


async def rewrite(port: int, accident: asyncio.Event) -> None:
    """Have Redis rewrite its file as often as it can."""
    with redis.Redis(port=port, socket_timeout=2) as client:
        while not accident.is_set():
            with suppress(redis.RedisError):  # one is under way
                client.bgrewriteaof()
            await asyncio.sleep(REWRITE_SECONDS)


def summary(losses: list[Loss]) -> dict[str, Any]:
    windows = [loss.window_ms for loss in losses]
    return {
        "accepted": sum(loss.accepted for loss in losses),
        "lost": sum(loss.lost for loss in losses),
        "cuts_with_loss": sum(loss.lost > 0 for loss in losses),
        "window_ms_median": median(windows),
        "window_ms_max": max(windows),
        "ended": sum(loss.ended for loss in losses),
        "ended_lost": sum(loss.lost_ended for loss in losses),
        "ended_again": sum(loss.backwards for loss in losses),
        "ended_window_ms_max": max(loss.backwards_window_ms for loss in losses),
        "gaps": sum(loss.gaps for loss in losses),
    }


def table(figures: dict[str, Any]) -> list[str]:
    return [
        "Lost: answered with 201, and 404 afterwards. Window: age of the oldest of them at the",
        "accident; median of all accidents, and maximum. Undone: jobs whose end had been seen and",
        "that are lost or run again, and the age of the oldest such end. Gaps: lost jobs that were",
        "accepted before a job was sent that is kept.",
        "",
        "| | accidents | accepted | lost | window, ms | maximum | ends seen | undone | oldest, ms "
        "| gaps |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(name, figure) for name, figure in figures.items()),
    ]


def row(name: str, figure: dict[str, Any]) -> str:
    undone = figure["ended_lost"] + figure["ended_again"]
    cells = [
        *(name, figure["cuts"], f"{figure['accepted']:,}", f"{figure['lost']:,}"),
        *(f"{figure['window_ms_median']:.0f}", f"{figure['window_ms_max']:.0f}"),
        *(f"{figure['ended']:,}", undone, f"{figure['ended_window_ms_max']:.0f}", figure["gaps"]),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
