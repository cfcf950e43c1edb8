"""Kills the parts of a real stack under steady load, then accounts for every job.

python -m tests.chaos --jobs 500 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import redis

from tests.chaos.cases import Case, broken_case, healthy_cases, poison_case
from tests.chaos.faults import Saboteur, finished
from tests.chaos.load import CaseLoad
from tests.chaos.reconcile import Verdict, reconcile
from tests.support.slow_network import SlowNetwork
from tests.support.stack import Stack
from yolo_queue import AsyncClient, Client

# Faults in the order of a run; a longer run goes through them more than once.
ROUND = (
    "pool process SIGKILL",
    "Redis SIGKILL",
    "worker SIGKILL",
    "gateway SIGTERM",
    "pool process SIGKILL",
    "Redis paused",
    "worker paused",
    "connections cut",
    "malformed messages",
    "silent clients",
    "gateway SIGKILL",
    "worker SIGTERM",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2, help="how often each fault happens")
    parser.add_argument("--rate", type=float, default=5.0, help="jobs sent a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--micro-batch",
        type=int,
        default=1,
        metavar="N",
        help="MICRO_BATCH_JOBS; above 1 a worker has one process, so that jobs pile up before it",
    )
    parser.add_argument(
        "--redis-delay-ms",
        type=float,
        default=0,
        metavar="N",
        help="round trip between workers and Redis, by a proxy; the gateway stays beside Redis",
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="yolo-queue-chaos-"))
    say(f"logs: {folder}")
    verdict, load, saboteur = run(folder, arguments)
    report(verdict, load, saboteur, time.monotonic() - began)
    return 1 if verdict.discrepancies else 0


def run(folder: Path, arguments: argparse.Namespace) -> tuple[Verdict, CaseLoad, Saboteur]:
    batching = arguments.micro_batch > 1
    stack = Stack(
        folder,
        MICRO_BATCH_JOBS=str(arguments.micro_batch),
        WORKER_CONCURRENCY="1" if batching else "2",
        RESULT_TTL_SECONDS="3600",
        TASK_TIME_LIMIT_SECONDS="20",
        TASK_KILL_GRACE_SECONDS="2",
    )
    with ExitStack() as running:
        if arguments.redis_delay_ms:
            network = SlowNetwork(stack.redis.port, round_trip_ms=arguments.redis_delay_ms)
            stack.worker_environment["REDIS_URL"] = running.enter_context(network).url
        running.enter_context(stack)
        stack.start(workers=0)
        saboteur = Saboteur(stack, arguments.seed)
        stack.workers = [saboteur.start_worker() for _ in range(2)]
        cases = make_cases(arguments.jobs, arguments.seed)
        stack.wait_ready(processes=2 if batching else 4)

        order = list(ROUND) * arguments.rounds
        random.Random(arguments.seed).shuffle(order)
        load = asyncio.run(send_meanwhile(stack.url, cases, arguments.rate, saboteur, order))
        with (
            redis.Redis(port=stack.redis.port, socket_timeout=10) as store,
            Client(stack.url) as client,
        ):
            verdict = reconcile(client, store, load, saboteur.faults)
            verdict.discrepancies += leftovers(store)
            if (ended := finished(store)) != verdict.account["accepted"]:
                verdict.discrepancies.append(f"{ended} jobs have ended by the service's own count")
        if "totals were wrong" in stack.logs():
            verdict.discrepancies.append("totals had to be corrected; the gateway's log says which")
        say_what_logs_know(stack.logs(), verdict.discrepancies)
        if batching:
            sizes = [int(size) for size in re.findall(r"(\d+) jobs in one batch", stack.logs())]
            say(f"{len(sizes)} batches with {sum(sizes)} jobs")
            if not sizes:
                verdict.discrepancies.append("no two jobs ran together")
    return verdict, load, saboteur


async def send_meanwhile(
    url: str, cases: list[Case], rate: float, saboteur: Saboteur, order: list[str]
) -> CaseLoad:
    """Do the faults in this order under load; returns the load once all its jobs have ended."""

    def do_faults() -> None:
        kinds = saboteur.kinds()
        for name in order:
            say(f"{name} ...")
            kinds[name]()
            time.sleep(2)  # steady load between faults

    async with AsyncClient(url, retry_seconds=0) as client:
        load = CaseLoad(client, cases, rate)
        sending = asyncio.create_task(load.run())
        await asyncio.to_thread(do_faults)
        load.finish()
        say("waiting for the last jobs")
        await sending
    return load


def make_cases(jobs: int, seed: int) -> list[Case]:
    """Mostly healthy jobs of mixed sizes, in a seeded order, with poison and broken files."""
    source = random.Random(seed)
    special = [poison_case(kind) for kind in ("kill", "kill", "hang", "raise", "slow")]
    special += [broken_case(seed + number) for number in range(max(3, jobs // 50))]
    healthy = healthy_cases()
    cases = special[3:] + [source.choice(healthy) for _ in range(jobs - len(special))]
    source.shuffle(cases)
    # The ones that take long go first, or the run would wait for them at its end.
    slow = [case for case in cases if case.name == "slow"]
    return special[:3] + slow + [case for case in cases if case.name != "slow"]


def say_what_logs_know(logs: str, discrepancies: list[str]) -> None:
    """Print the log lines of the jobs that went wrong, in case the files do not outlive the run."""
    ids = {line.split()[0] for line in discrepancies}
    for line in logs.splitlines():
        if any(task_id in line for task_id in ids):
            say(line)


def leftovers(client: redis.Redis) -> list[str]:
    """What must be gone once every job has ended."""
    left = [f"lease left: {name!r}" for name in client.zrange("yolo:leases", 0, -1)]
    left += [f"image left: {name!r}" for name in client.keys("yolo:image:*")]
    left += [f"job left in {key!r}" for key in client.keys("yolo:lane:*")]
    left += [f"total left in {key}" for key in ("yolo:clients", "yolo:owed") if client.exists(key)]
    if int(client.hget("yolo:stats", "queued_bytes") or 0):
        left.append("queued_bytes is not 0")
    return left


def report(verdict: Verdict, load: CaseLoad, saboteur: Saboteur, seconds: float) -> None:
    names = [fault.name for fault in saboteur.faults]
    print("\n| fault | times | recoveries | p50 s | max s |\n| --- | --- | --- | --- | --- |")
    for name, times in sorted(verdict.recoveries.items()):
        median = f"{statistics.median(times):.1f}" if times else "-"
        longest = f"{max(times):.1f}" if times else "-"
        print(f"| {name} | {names.count(name)} | {len(times)} | {median} | {longest} |")
    account = verdict.account
    ended = {state: account[state] for state in ("completed", "failed")}
    print(f"\njobs accepted: {account['accepted']}, ended: {ended}")
    print(f"attempts: {dict(sorted(Counter(shot.attempts for shot in load.shots).items()))}")
    print(f"refused and sent again: {account['refusals_by_code']}")
    print(f"took {seconds:.0f} s")
    for line in verdict.discrepancies:
        print("DISCREPANCY", line)
    print("nothing lost, nothing twice" if not verdict.discrepancies else "FAILED")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
