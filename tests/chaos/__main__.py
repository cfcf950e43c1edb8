"""Kills the parts of a real stack under load. Then it accounts for every job, and decides whether
what the clients saw is possible.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import redis

from tests.chaos.cases import Case, broken_case, healthy_cases, poison_case, tiled_case
from tests.chaos.faults import MAX_ATTEMPTS, Saboteur, ended_jobs
from tests.chaos.history import History, Recorder
from tests.chaos.history_checker import check, summary
from tests.chaos.history_load import (
    MAX_QUEUE_JOBS,
    Audit,
    HistoryLoad,
    record_webhook,
    small_cases,
)
from tests.chaos.load import CaseLoad
from tests.chaos.reconcile import Verdict, reconcile
from tests.support.receivers import SECRET, receiver
from tests.support.slow_network import SlowNetwork
from tests.support.stack import Stack
from yolo_queue import AsyncClient

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

RESULT_TTL_SECONDS = 3600
"""Longer than a run, so no job may ever be unknown."""
HISTORY_SHARE = 0.2
"""Jobs of the history's clients, as a share of the load's."""
REFUSED_WEBHOOKS = 4
"""The receiver refuses the first ones, so that some are sent twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the clients have left when all jobs have ended."""

    load: CaseLoad
    history: History
    others: dict[str, Case]
    """The cases of the history's jobs, by id."""
    audits: dict[str, Audit]


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
    verdict, outcome, saboteur = run(folder, arguments)
    report(verdict, outcome, saboteur, time.monotonic() - began)
    return 1 if verdict.discrepancies or verdict.violations else 0


def run(folder: Path, arguments: argparse.Namespace) -> tuple[Verdict, Outcome, Saboteur]:
    batching = arguments.micro_batch > 1
    stack = Stack(
        folder,
        MICRO_BATCH_JOBS=str(arguments.micro_batch),
        WORKER_CONCURRENCY="1" if batching else "2",
        RESULT_TTL_SECONDS=str(RESULT_TTL_SECONDS),
        TASK_TIME_LIMIT_SECONDS="20",
        TASK_KILL_GRACE_SECONDS="2",
        WEBHOOK_SECRET=SECRET,
        WEBHOOK_ALLOW_PRIVATE="true",
    )
    with ExitStack() as running:
        if arguments.redis_delay_ms:
            network = SlowNetwork(stack.redis.port, round_trip_ms=arguments.redis_delay_ms)
            stack.worker_environment["REDIS_URL"] = running.enter_context(network).url
        running.enter_context(stack)
        stack.start(workers=0)
        saboteur = Saboteur(stack, arguments.seed)
        stack.workers = [saboteur.start_worker() for _ in range(2)]
        cases = make_cases(arguments.jobs, arguments.seed, arguments.micro_batch)
        stack.wait_ready(processes=2 if batching else 4)

        order = list(ROUND) * arguments.rounds
        random.Random(arguments.seed).shuffle(order)
        outcome = asyncio.run(send_meanwhile(stack, cases, arguments, saboteur, order))
        verdict = reconcile(outcome.load, outcome.others, outcome.audits, saboteur.faults)
        verdict.violations = check(outcome.history)
        with redis.Redis(port=stack.redis.port, socket_timeout=10) as store:
            verdict.discrepancies += leftovers(store)
            verdict.discrepancies += miscounted(store, outcome.audits)
        if "totals were wrong" in stack.logs():
            verdict.discrepancies.append("totals had to be corrected; the gateway's log says which")
        say_what_logs_know(stack.logs(), verdict.discrepancies + verdict.violations)
        if batching:
            sizes = [int(size) for size in re.findall(r"(\d+) jobs in one batch", stack.logs())]
            say(f"{len(sizes)} batches with {sum(sizes)} jobs")
            if not sizes:
                verdict.discrepancies.append("no two jobs ran together")
    return verdict, outcome, saboteur


async def send_meanwhile(
    stack: Stack,
    cases: list[Case],
    arguments: argparse.Namespace,
    saboteur: Saboteur,
    order: list[str],
) -> Outcome:
    """Do the faults in this order under load; returns once all jobs have ended."""

    def do_faults() -> None:
        kinds = saboteur.kinds()
        for name in order:
            say(f"{name} ...")
            kinds[name]()
            time.sleep(2)  # steady load between faults

    recorder = Recorder(
        stack.folder / "history.jsonl",
        result_ttl_seconds=RESULT_TTL_SECONDS,
        max_attempts=MAX_ATTEMPTS,
    )
    timeout = httpx.Timeout(None, connect=5)  # each request has a deadline of its own
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        AsyncClient(stack.url, retry_seconds=0) as client,
        httpx.AsyncClient(base_url=stack.url, timeout=timeout, limits=limits) as http,
    ):
        load = CaseLoad(client, cases, arguments.rate)
        hear = partial(record_webhook, recorder)
        with recorder, receiver(failures=REFUSED_WEBHOOKS, heard=hear) as (webhook_url, _):
            history = HistoryLoad(
                http,
                recorder,
                small_cases(cases),
                webhook_url=webhook_url,
                rate=arguments.rate * HISTORY_SHARE,
                seed=arguments.seed,
                others=load.latest_job,
            )
            async with asyncio.TaskGroup() as clients:
                clients.create_task(load.run())
                clients.create_task(history.run())
                await asyncio.to_thread(do_faults)
                load.finish()
                history.finish()
                say("waiting for the last jobs")
            say("a crowd before a short queue")
            await asyncio.to_thread(shorten_queue, stack)
            await history.crowd()
            await history.wait_for_webhooks()
            ids = [shot.task_id for shot in load.shots if shot.task_id]
            audits = await history.audit([*ids, *history.cases])
            return Outcome(load, recorder.finish(), history.cases, audits)


def shorten_queue(stack: Stack) -> None:
    """Restart the gateway with a short queue. It would be in the way while faults let jobs pile
    up."""
    stack.environment["MAX_QUEUE_JOBS"] = str(MAX_QUEUE_JOBS)
    stack.gateway.terminate()
    stack.gateway.wait(timeout=40)
    stack.start_gateway()


def make_cases(jobs: int, seed: int, micro_batch_jobs: int) -> list[Case]:
    """Mostly healthy jobs of mixed sizes, in a seeded order, with poison and broken files."""
    source = random.Random(seed)
    special = [poison_case(kind) for kind in ("kill", "kill", "hang", "raise", "slow")]
    special += [broken_case(seed + number) for number in range(max(3, jobs // 50))]
    healthy = [*healthy_cases(micro_batch_jobs), tiled_case(micro_batch_jobs)]
    cases = special[3:] + [source.choice(healthy) for _ in range(jobs - len(special))]
    source.shuffle(cases)
    # The ones that take long go first, or the run would wait for them at its end.
    slow = [case for case in cases if case.name == "slow"]
    return special[:3] + slow + [case for case in cases if case.name != "slow"]


def say_what_logs_know(logs: str, wrong: list[str]) -> None:
    """Print the log lines of the jobs that went wrong, in case the files do not outlive the run."""
    ids = {line.split()[0].rstrip(":") for line in wrong}
    for line in logs.splitlines():
        if any(task_id in line for task_id in ids):
            say(line)


def leftovers(client: redis.Redis) -> list[str]:
    """What must be gone once every job has ended."""
    left = [f"lease left: {name!r}" for name in client.zrange("yolo:leases", 0, -1)]
    for name in client.keys("yolo:image:*"):
        # One without a record was stored and never accepted: its gateway died, or its connection.
        if client.exists(name.replace(b":image:", b":job:")) or client.ttl(name) < 0:
            left.append(f"image left: {name!r}")
    left += [
        f"job left in {key!r}" for key in client.keys("yolo:lane:*") + client.keys("yolo:heavy:*")
    ]
    left += [f"left of a part: {key!r}" for key in client.keys("yolo:*#*")]
    left += [f"total left in {key}" for key in ("yolo:clients", "yolo:owed") if client.exists(key)]
    if int(client.hget("yolo:stats", "queued_bytes") or 0):
        left.append("queued_bytes is not 0")
    return left


def miscounted(client: redis.Redis, audits: dict[str, Audit]) -> list[str]:
    """The service's own count of ended jobs must be that of the jobs which clients know."""
    known, counted = Counter(audit.job["status"] for audit in audits.values()), ended_jobs(client)
    return [] if known == counted else [f"the service counts {counted}, its clients {dict(known)}"]


def report(
    verdict: Verdict,
    outcome: Outcome,
    saboteur: Saboteur,
    seconds: float,
) -> None:
    load, history = outcome.load, outcome.history
    names = [fault.name for fault in saboteur.faults]
    print("\n| fault | times | recoveries | p50 s | max s |\n| --- | --- | --- | --- | --- |")
    for name, times in sorted(verdict.recoveries.items()):
        median = f"{statistics.median(times):.1f}" if times else "-"
        longest = f"{max(times):.1f}" if times else "-"
        print(f"| {name} | {names.count(name)} | {len(times)} | {median} | {longest} |")
    account = verdict.account
    ended = {state: account[state] for state in ("completed", "failed")}
    others = Counter(
        outcome.audits[task_id].job["status"]
        for task_id in outcome.others
        if task_id in outcome.audits
    )
    print(f"\njobs accepted: {account['accepted']}, ended: {ended}")
    print(f"attempts: {dict(sorted(Counter(shot.attempts for shot in load.shots).items()))}")
    print(f"refused and sent again: {account['refusals_by_code']}")
    print(f"jobs of the history: {len(outcome.others)}, ended: {dict(others)}")
    print(f"took {seconds:.0f} s")
    for line in verdict.discrepancies:
        print("DISCREPANCY", line)
    for line in verdict.violations:
        print("VIOLATION", line)
    print(f"history: {summary(history)}, {'impossible' if verdict.violations else 'possible'}")
    failed = verdict.discrepancies or verdict.violations
    print("FAILED" if failed else "nothing lost, nothing twice")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
