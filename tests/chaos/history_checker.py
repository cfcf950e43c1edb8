"""Decides whether a recorded history is possible.

python -m tests.chaos.history_checker FILE

The rules are in job_rules.py, delivery_rules.py and retry_after_rules.py. Each says what no
correct service could have answered, whatever was killed meanwhile. They assume little about time: a
request takes effect at some moment between its invocation and its return or, if its answer was
lost, at any later moment or never.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import delivery_rules, job_rules, retry_after_rules
from tests.chaos.history import History, Kind, Operation, Outcome
from tests.chaos.observations import Observation, observations_by_job


def check(history: History) -> list[str]:
    """What is impossible about a history, in words that name the operations; empty if nothing."""
    operations = history.operations
    found = [
        *job_rules.answers_are_known(operations),
        *job_rules.keys_name_one_job(operations),
        *job_rules.finished_total_grows(operations),
        *delivery_rules.webhooks_arrive(operations, history),
        *retry_after_rules.within_bounds(operations),
        *retry_after_rules.the_obedient_are_let_in(operations),
        *retry_after_rules.full_queues_estimate_well(operations),
    ]
    by_job: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.task_id:
            by_job[operation.task_id].append(operation)
    seen = observations_by_job(operations)
    for task_id, its in by_job.items():
        wrong = _wrong_with_job(its, seen.get(task_id, []), history)
        found += [f"{task_id}: {words}" for words in wrong]
    return found


def _wrong_with_job(
    operations: list[Operation], seen: list[Observation], history: History
) -> Iterator[str]:
    yield from job_rules.states_move_forward(seen)
    yield from job_rules.one_end(seen)
    yield from job_rules.reachable(seen, history)
    yield from job_rules.times_are_stable(seen)
    yield from job_rules.results_belong_to_completed_jobs(seen)
    yield from job_rules.cancelling_is_honest(operations, seen)
    yield from job_rules.known_until_expired(operations, seen, history)
    yield from job_rules.every_job_ends(seen, history)
    follows = [one for one in operations if one.kind is Kind.FOLLOW]
    for follow in follows:
        yield from delivery_rules.stream_is_in_order(follow)
    yield from delivery_rules.streams_agree(follows, history)


def summary(history: History) -> str:
    """How much a history has to say."""
    kinds = Counter(str(one.kind) for one in history.operations)
    lost = sum(one.outcome is Outcome.UNKNOWN for one in history.operations)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in Kind)
    return f"{len(history.operations)} operations ({counts}; {lost} answers lost)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="history.jsonl of a chaos run")
    with parser.parse_args().file.open() as lines:
        history = History.from_lines(lines)
    violations = check(history)
    for words in violations:
        print("VIOLATION", words)
    print(f"history: {summary(history)}, {'impossible' if violations else 'possible'}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
