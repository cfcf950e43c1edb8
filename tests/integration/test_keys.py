"""The table of keys in shared/job/keys.py against what the jobs of a service leave in Redis."""

from __future__ import annotations

import re

import pytest

from api.rate_limit import RateLimiter
from shared.job import keys
from shared.job.celery_result import success_meta
from shared.job.dead_letters import DeadLetters
from shared.job.gateway_store import GatewayStore
from shared.job.keys import LANES, Keys, part_of
from shared.job.scripts import script_text
from shared.job.webhook_outbox import WebhookOutbox
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.jobs import claimed, job

pytestmark = pytest.mark.anyio


def documented() -> list[re.Pattern[str]]:
    """The first column of the table, each name as a pattern."""
    rows = [line.split("|")[1] for line in (keys.__doc__ or "").splitlines() if line[:1] == "|"]
    names = re.findall(r"`([^`]+)`", " ".join(rows))
    patterns = []
    for name in names:
        text = re.escape(name.replace("{q}", "yolo"))
        text = re.sub(r"\\\{\w+\\\}|\\\.\\\.\\\.|\\\*", ".+", text)
        patterns.append(re.compile(text))
    return patterns


async def test_every_key_is_in_the_table(settings: Settings) -> None:
    strict = settings.model_copy(update={"max_attempts": 1, "rate_limit": "5/minute"})
    gateway, store = GatewayStore(strict), WorkerStore(strict)
    outbox, limiter = WebhookOutbox(gateway.redis, strict), RateLimiter(strict)
    seen: set[bytes] = set()

    async def look() -> None:
        seen.update(store.redis.keys("*"))

    await limiter.check("a client")
    store.redis.lpush("yolo", "an inline task")
    hooked = job("a", webhook_url="http://x/", idempotency_key="a:k", fingerprint="f")
    done, died, waiting = hooked, job("b"), job("c")
    for new in (done, died, waiting):
        await gateway.accept(new)
    store.heartbeat("w1", {"ready": 1, "models": {"demo": "9f"}}, [])
    store.describe_model("demo", "9f", "{}")
    await look()
    split = job("d", parts=2)
    await gateway.accept(split)
    store.deliver(claimed(store, part_of(split.task_id, 0)), b"found")
    await look()
    assert store.complete(claimed(store, done.task_id), success_meta(done.task_id, {}))
    claimed(store, died.task_id)
    await look()
    assert store.abandon(died.task_id, "timeout", attempt=1) == "dead"
    store.bury_message("no JSON", "it is not JSON")
    taken = await outbox.take(60)
    assert taken is not None
    await outbox.write(taken, b"{}")
    assert await outbox.take(60, full=["host:x"]) is None
    await look()
    table = documented()
    assert {key for key in seen if not any(p.fullmatch(key.decode()) for p in table)} == set()
    # And what is in the table is there, except for keys that live only for a moment.
    elsewhere = ("staged", "probe", "changes", "unacked", "kombu", "pidbox")
    names = {key.decode() for key in seen}
    missing = [
        p.pattern
        for p in table
        if not any(map(p.fullmatch, names)) and not any(word in p.pattern for word in elsewhere)
    ]
    assert missing == []
    assert len(DeadLetters(strict, store).list()) == 2
    await gateway.close()
    await limiter.close()


def test_python_and_the_scripts_agree_on_names(settings: Settings, store: WorkerStore) -> None:
    """Asked of the scripts themselves: what common.lua builds for an id and a lane."""
    script = script_text("worker_leave", settings).replace("sum_ready_processes()\nreturn 1", "")
    built = store.redis.eval(
        script + "return {job_key('i'), image_key('i'), dead_image_key('i'), result_key('i'),"
        " list_key('demo.0'), list_key(lanes_of('demo')[LANES]), tostring(LANES),"
        " tostring(MAX_BATCHED_ID_BYTES)}",
        1,
        "yolo",
        '{"worker": "w"}',
    )
    named = Keys("yolo")
    assert [name.decode() for name in built] == [
        *(named.job("i"), named.image("i"), named.dead_image("i"), keys.result_key("i")),
        *(named.lane_queues("demo")[0], named.lane_queues("demo")[-1]),
        *(str(LANES), str(keys.MAX_BATCHED_ID_BYTES)),
    ]
