"""The names of everything in Redis, and the constants that Python and the Lua scripts share.

`{q}` is `YOLO_QUEUE`, which keeps services on one server apart.

| key | type | what | lives |
| --- | --- | --- | --- |
| `{q}.{lane}` | list | Celery messages; a lane is `{model}.{n}`, n from 0 to 7 | until taken |
| `{q}` | list | Celery messages of inline tasks | until taken |
| `{q}.probe.{worker}` | list | a worker's message to itself: does it still consume? | 1 minute |
| `{q}:job:{id}` | hash | the record: the truth about a job | until it ends, then result TTL |
| `{q}:job:{id}#{n}` | hash | the record of a part of a job with many tiles | until it is done |
| `{q}:found:{id}#{n}` | string | what a part has found | until the job ends, record TTL |
| `{q}:image:{id}` | string | the upload | until the job ends, record TTL |
| `celery-task-meta-{id}` | string | result or failure in Celery's format | result TTL |
| `{q}:staged:{id}:{attempt}` | string | a result before its commit | 1 minute |
| `{q}:events:{id}` | stream | state changes, for `/events` | with the record |
| `{q}:changes` | channel | `id state` at every change after the first state | - |
| `{q}:lane:{lane}` | sorted set | queued ids by sequence number: position in O(log n) | while any |
| `{q}:heavy:{lane}` | sorted set | those of them that are parts | while any |
| `{q}:in-parts` | sorted set | jobs in parts, by when they were accepted | while any |
| `{q}:clients` | hash | for each model and client the lane and number of queued jobs | while any |
| `{q}:owed` | hash | for each queued id its bytes and owner, to subtract later | until taken |
| `{q}:leases` | sorted set | running ids by the end of their lease | until finished |
| `{q}:marks` | hash | how far each lane has been taken (heartbeat.lua) | with the model |
| `{q}:stats` | hash | sequence number, counters, drain rate | for ever, bounded names |
| `{q}:models` | sorted set | names of models by when they were last served | 7 days from then |
| `{q}:model:{model}` | hash | its counters, drain rate, and what each version is | with the name |
| `{q}:workers`, `{q}:workers-seen` | hash, sorted set | last report of each worker | 3 heartbeats |
| `{q}:webhooks`, `{q}:webhook:{id}` | sorted set, hash | webhooks to send: when, what | 2 days |
| `{q}:webhooks-parked:{bound}` | list | webhooks that wait for another send to end | 2 days |
| `{q}:idem:{owner}:{digest}` | hash | the job that an Idempotency-Key made | record TTL |
| `{q}:dead`, `{q}:dead-bytes` | sorted set, hash | dead letters: ids, bytes | while there are any |
| `{q}:dead:{id}`, `{q}:dead-image:{id}` | hash, string | one dead letter | `DEAD_TTL_SECONDS` |
| `{q}:rate:...` | list | `RATE_LIMIT`, written by the library `limits` | its window |
| `unacked*`, `_kombu.*`, `*.pidbox` | any | kombu's own | |

The scripts in `lua/` touch no other key; tests/integration/test_keys.py compares the table with
what is there. The scripts reach several keys by name, so Redis Cluster is not supported; Sentinel
and managed single-shard servers are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LANES = 8
"""Lists of one model that workers take from in turn; as many of its clients can have a backlog
without meeting."""

MAX_BATCHED_ID_BYTES = 64
"""A job with a longer id never shares a forward pass. Ids made here have 36; only a Celery producer
that chooses its own could make longer ones."""

HEARTBEAT_SECONDS = 2.0
"""How often a worker renews its leases. After three missed heartbeats it counts as absent."""

TASK_NAME = "yolo.detect"

_PART = re.compile(r"([^#]+)#([0-9]+)")
"""As in common.lua."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one service that Python uses; the scripts have the others."""

    queue: str

    def lane_queues(self, model: str) -> list[str]:
        """The Celery queues of a model's lanes."""
        return [f"{self.queue}.{lane}" for lane in lanes_of(model)]

    def probe(self, worker: str) -> str:
        return f"{self.queue}.probe.{worker}"

    def job(self, task_id: str) -> str:
        return f"{self.queue}:job:{task_id}"

    def image(self, task_id: str) -> str:
        return f"{self.queue}:image:{task_id}"

    def found(self, part: str) -> str:
        return f"{self.queue}:found:{part}"

    def staged(self, task_id: str, attempt: int) -> str:
        return f"{self.queue}:staged:{task_id}:{attempt}"

    def dead_letter(self, task_id: str) -> str:
        return f"{self.queue}:dead:{task_id}"

    def dead_image(self, task_id: str) -> str:
        return f"{self.queue}:dead-image:{task_id}"

    @property
    def dead(self) -> str:
        return f"{self.queue}:dead"

    @property
    def changes(self) -> str:
        return f"{self.queue}:changes"

    @property
    def models(self) -> str:
        return f"{self.queue}:models"

    @property
    def workers(self) -> str:
        return f"{self.queue}:workers"

    @property
    def workers_seen(self) -> str:
        return f"{self.queue}:workers-seen"

    @property
    def rate(self) -> str:
        return f"{self.queue}:rate"


def part_of(task_id: str, number: int) -> str:
    """The id of a part of a job; parts are counted from 0."""
    return f"{task_id}#{number}"


def job_of(task_id: str) -> str:
    """The job that a part belongs to, if it is one; or the job itself."""
    part = _PART.fullmatch(task_id)
    return part[1] if part else task_id


def part_number(task_id: str) -> int | None:
    """None: not a part."""
    part = _PART.fullmatch(task_id)
    return int(part[2]) if part else None


def lanes_of(model: str) -> list[str]:
    """The names of a model's lanes."""
    return [f"{model}.{number}" for number in range(LANES)]


def result_key(task_id: str) -> str:
    """Where Celery's Redis backend keeps what a task returned."""
    return f"celery-task-meta-{task_id}"
