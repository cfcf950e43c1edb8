"""Owns the names of everything in Redis.

`{q}` is `YOLO_QUEUE`, which keeps services on one server apart.

| key | type | what | lives |
| --- | --- | --- | --- |
| `{q}`, `{q}.1` ... `{q}.7` | list | Celery messages, a list a lane | until taken |
| `{q}:job:{id}` | hash | the record: the truth about a job | until it ends, then result TTL |
| `{q}:image:{id}` | string | the upload, or on `IMAGE_REDIS_URL` | until the job ends, record TTL |
| `celery-task-meta-{id}` | string | result or failure, Celery's format | `RESULT_TTL_SECONDS` |
| `{q}:staged:{id}:{attempt}` | string | a result on its way to the key above | 1 minute |
| `{q}:events:{id}` | stream | state changes: `/events`, chaos audit | with the record |
| `{q}:changes` | channel | `id state` at every change after the first state | - |
| `{q}:lane:{n}` | sorted set | queued ids by sequence number: position in O(log n) | until taken |
| `{q}:clients` | hash | per client: its lane and its number of queued jobs | while it has any |
| `{q}:owed` | hash | per queued id: bytes and owner, what leaves the totals with it | until taken |
| `{q}:leases` | sorted set | running ids by the time their lease ends | until finished |
| `{q}:marks` | hash | how far each lane has been taken (see heartbeat.lua) | for ever, 8 lanes |
| `{q}:stats` | hash | sequence, counters, drain rate | for ever, bounded names |
| `{q}:workers`, `{q}:workers-seen` | hash, sorted set | each worker's last report | 3 heartbeats |
| `{q}:model` | string | the model served, as JSON | for ever |
| `{q}:webhooks`, `{q}:webhook:{id}` | sorted set, hash | webhooks to send: when, what | 2 days |
| `{q}:webhooks-parked:{bound}` | list | those that wait for the end of another send | 2 days |
| `{q}:idem:{owner}:{digest}` | hash | which job an Idempotency-Key made | record TTL |
| `{q}:dead`, `{q}:dead-bytes` | sorted set, hash | dead letters: ids, bytes | while there are any |
| `{q}:dead:{id}`, `{q}:dead-image:{id}` | hash, string | one of them | `DEAD_TTL_SECONDS` |
| `unacked*`, `_kombu.*`, `*.pidbox` | | kombu's own | |

The scripts in `lua/` touch no other key. They reach several keys by name, so Redis Cluster is not
supported; Sentinel and managed single-shard servers are.
"""

from __future__ import annotations

from pathlib import Path

LANES = 8
"""Lists that workers take from in turn; as many clients can have a backlog without meeting."""

TASK_NAME = "yolo.detect"

_LUA = Path(__file__).with_name("lua")


def script(name: str) -> str:
    """The text of one Lua script with the functions all of them share in front."""
    return (_LUA / "common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


def lane_queue(queue: str, lane: int) -> str:
    """Name of the Celery queue of a lane; lane 0 has the plain name."""
    return queue if lane == 0 else f"{queue}.{lane}"


def job_key(queue: str, task_id: str) -> str:
    return f"{queue}:job:{task_id}"


def image_key(queue: str, task_id: str) -> str:
    return f"{queue}:image:{task_id}"


def dead_image_key(queue: str, task_id: str) -> str:
    return f"{queue}:dead-image:{task_id}"


def staged_key(queue: str, task_id: str, attempt: int) -> str:
    return f"{queue}:staged:{task_id}:{attempt}"


def result_key(task_id: str) -> str:
    """Where Celery's Redis backend keeps what a task returned."""
    return f"celery-task-meta-{task_id}"
