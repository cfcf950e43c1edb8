"""A service without processes: every call of a script runs on the real server and on the model.

A method is what one gateway, worker or passer-by does in one round trip. It fails if the reply, the
messages on the change channel or the state afterwards differ from the model's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shared.errors import AttemptsExhausted, UndecodableImage, UndeliverableMessage
from shared.job.celery_result import failure_meta, success_meta
from shared.job.keys import Keys, job_of, lanes_of, result_key
from shared.job.message import first_message, task_message
from shared.job.worker_store import STAGED_SECONDS
from tests.proofs.differences import Q, differences, positions
from tests.proofs.model import MODELS, Model, Request
from tests.proofs.timeline import EMPTY, State, Timeline

VERSION = "9f86"
START_MS = 1_700_000_000_000
KEYS = Keys(Q)
FAILURE = UndecodableImage("no picture")


class Wrong(AssertionError):
    """The scripts did something that the model does not."""


class Simulation:
    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.model = Model(timeline.settings, START_MS)
        self.state = State(EMPTY, START_MS)
        self.made = 0

    def fork(self) -> Simulation:
        """The same service at the same moment, to take another turn from here."""
        twin = Simulation.__new__(Simulation)
        twin.timeline, twin.state, twin.made = self.timeline, self.state, self.made
        twin.model = self.model.copy()
        twin.model.settings = self.timeline.settings
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """For another process, where `use` gives it a server."""
        return {name: value for name, value in vars(self).items() if name != "timeline"}

    def use(self, timeline: Timeline) -> None:
        self.timeline, self.model.settings = timeline, timeline.settings

    @property
    def now(self) -> int:
        return self.model.now

    def advance(self, ms: int) -> None:
        self.model.now += ms

    def jump(self, ms: int) -> None:
        """Set Redis' clock, perhaps back. What has expired by then is gone for good."""
        self.model.expire()
        self._commands()
        self.model.now += ms

    # -- gateways -------------------------------------------------------------------------------

    def store_image(self, task_id: str) -> None:
        ttl = self.model.settings.record_ttl_seconds
        self.model.store_image(task_id)
        self._commands(["SET", KEYS.image(task_id), "image", "EX", ttl])

    def delete_image(self, task_id: str) -> None:
        self.model.delete_image(task_id)
        self._commands(["UNLINK", KEYS.image(task_id)])

    def accept(
        self,
        owner: str,
        requests: Sequence[Request],
        *,
        model: str = MODELS[0],
        adopt: bool = False,
        key: str = "",
        fingerprint: str = "",
    ) -> str:
        expected = self.model.accept(
            owner, requests, model=model, adopt=adopt, key=key, fingerprint=fingerprint
        )
        jobs = [
            {
                "id": request.id,
                "bytes": request.bytes,
                "params": request.params,
                "width": request.pixels,
                "height": 1,
                "content_type": "image/png",
                "messages": [first_message(name, Q) for name in request.places],
                "webhook_url": f"http://{owner}.test/" if request.webhook else "",
                "traceparent": "",
            }
            for request in requests
        ]
        status, views = self._call(
            "accept",
            owner=owner,
            model=model,
            idempotency_key=key,
            fingerprint=fingerprint,
            adopt=adopt,
            jobs=jobs,
        )
        if status == b"full":
            views = []
        shown = [_fields(view).get("task_id", "") for view in views]
        self._compare("accept", (status.decode(), shown), expected)
        return expected[0]

    def read(self, task_id: str) -> dict[str, str]:
        self.model.expire_if_overdue(task_id)
        view = self._call("read", id=task_id)
        fields = _fields(view)
        job = self.model.record(task_id)
        self._compare("read", fields.get("state"), job.state if job else None)
        if job and job.state == "queued":
            self._check(list(positions(self.model, {task_id: int(fields["position"])})))
        return fields

    def queue(self) -> None:
        in_flight, _, workers, dead, _, _, of_models = self._call("queue", descriptions=False)
        model = self.model
        expected = (len(model.leases), len(model.workers), len(model.dead))
        self._compare("queue", (in_flight, len(workers) // 2, dead), expected)
        running = Counter(job.model for name in model.leases if (job := model.record(name)))
        self._compare(
            "models",
            {name.decode(): (depth, work, busy) for name, depth, work, busy, *_ in of_models},
            {
                name: (len(model.queued(name)), model.queued_work(name), running[name])
                for name in model.models
            },
        )

    def cancel(self, task_id: str) -> str:
        """Twice: the answer may be lost, and the same request sent again."""
        expected = self.model.cancel(task_id)
        arguments = {"id": task_id, "message": first_message(task_id, Q), "request": self._next()}
        for _ in range(2):
            status, _ = self._call("cancel", **arguments)
            self._compare("cancel", status.decode(), expected)
        return expected

    def sweep(self) -> None:
        self.model.sweep()
        self._call("sweep")

    def recount(self) -> None:
        """Corrects nothing but the places of jobs that somebody deleted."""
        gone = self.model.recount()
        corrected = self._call("recount", every_ms=0)
        expected = [f"{gone} places of jobs that are gone"] if gone else []
        # Their share of the totals goes with them; otherwise totals are right already.
        words = [text.decode() for text in corrected][: 1 if gone else None]
        self._compare("recount", words, expected)

    # -- the broker -----------------------------------------------------------------------------

    def messages(self, lane: str) -> list[str]:
        """The jobs that the messages of a lane are about, the next one first."""
        texts = self.state.value(f"{Q}.{lane}", [])
        return [_about(text) for text in reversed(texts)]

    def take_message(self, lane: str) -> str:
        """Deliver the next message of a lane to a worker; returns its job."""
        task_id = self.messages(lane)[0]
        self._commands(["RPOP", f"{Q}.{lane}"])
        return task_id

    def lose_message(self, lane: str) -> None:
        self.take_message(lane)

    def deliver_again(self, task_id: str) -> None:
        """As kombu does when a message was not acknowledged in time."""
        job = self.model.jobs[job_of(task_id)]
        message = first_message(task_id, Q)
        self._commands(["RPUSH", f"{Q}.{job.lane}", message])

    # -- workers --------------------------------------------------------------------------------

    def claim(self, task_id: str, worker: str, models: Sequence[str] = MODELS) -> int:
        """The number of the attempt; 0 if there is nothing to claim. Passed on to its lane if it is
        for another model."""
        expected = self.model.claim(task_id, worker, models)
        status, *rest = self._call("claim", id=task_id, worker=worker, models=list(models))
        self._compare("claim", status.decode(), expected)
        if expected == "elsewhere":
            self.republish(task_id)
        if expected != "claimed":
            return 0
        attempt = self.model.jobs[task_id].attempts
        self._compare("attempt", int(rest[0]), attempt)
        return attempt

    def claim_more(self, task_id: str, attempt: int, worker: str, wanted: int) -> list[str]:
        arguments = {"id": task_id, "attempt": attempt, "worker": worker, "wanted": wanted}
        reply, published = self._run("claim_more", **arguments)
        # It may meet jobs that have waited too long.
        for text in published:
            if text.endswith(" expired"):
                self._check([] if self.model.expire_if_overdue(text.split()[0]) else [text])
        taken = [_fields(flat)["task_id"] for flat in reply]
        self._check([f"{len(taken)} jobs instead of {wanted}"] if len(taken) > wanted else [])
        try:
            self.model.claim_more(task_id, attempt, worker, taken)
        except AssertionError as error:
            raise Wrong(str(error)) from error
        self._check_all(published)
        return taken

    def finish(
        self, task_id: str, attempt: int, *, failed: bool = False, run_us: int = 1_000_000
    ) -> str:
        """Stage a result and commit it."""
        meta = failure_meta(task_id, FAILURE) if failed else success_meta(task_id, {"n": attempt})
        staged = KEYS.staged(task_id, attempt)
        self._commands(["SET", staged, meta.decode(), "EX", STAGED_SECONDS])
        state = "failed" if failed else "completed"
        code = FAILURE.code if failed else ""
        expected = self.model.finish(task_id, attempt, state, code)
        outcome = self._call(
            "finish",
            id=task_id,
            attempt=attempt,
            state=state,
            staged=staged,
            run_us=run_us,
            error=json.dumps(FAILURE.as_dict()) if failed else "",
        )
        self._compare("finish", outcome.decode(), expected)
        if expected == "committed" and not failed:
            result = json.loads(self.state.value(result_key(job_of(task_id))))["result"]
            self._compare("result", result, {"n": attempt})
        return expected

    def deliver(self, task_id: str, attempt: int) -> str:
        """Stage what a part has found, and deliver it."""
        staged = KEYS.staged(task_id, attempt)
        self._commands(["SET", staged, task_id, "EX", STAGED_SECONDS])
        expected = self.model.deliver(task_id, attempt)
        status, *_ = self._call(
            "deliver", id=task_id, attempt=attempt, staged=staged, run_us=1_000_000
        )
        self._compare("deliver", status.decode(), expected)
        if expected == "delivered":
            self._compare("found", self.state.value(KEYS.found(task_id)), task_id)
        return expected

    def abandon(self, task_id: str, reason: str, *, attempt: int = 0, worker: str = "") -> str:
        error = AttemptsExhausted(reason, self.model.settings.max_attempts)
        expected = self.model.abandon(task_id, reason, error.code, attempt=attempt, worker=worker)
        held = {"attempt": attempt} if attempt else {"worker": worker}
        outcome = self._call(
            "abandon",
            id=task_id,
            **held,
            reason=reason,
            message=task_message(task_id, Q, delivery_tag="again"),
            meta=failure_meta(job_of(task_id), error).decode(),
            error=json.dumps(error.as_dict()),
        )
        self._compare("abandon", outcome.decode(), expected)
        return expected

    def heartbeat(
        self,
        worker: str,
        running: Sequence[str],
        *,
        ready: int = 1,
        models: Sequence[str] = MODELS,
    ) -> tuple[list[tuple[str, int]], list[str]]:
        """What it gives up for lost (id, attempt), and the jobs that need a new message."""
        expected = self.model.heartbeat(worker, running, models)
        report = json.dumps({"ready": ready, "models": dict.fromkeys(models, VERSION)})
        lost, vanished, _ = self._call(
            "heartbeat", worker=worker, report=report, running=list(running)
        )
        found = [(task_id.decode(), int(number)) for task_id, number in lost]
        self._compare("lost attempts", found, expected)
        jobs = [task_id.decode() for task_id in vanished]
        queued = self.model.queued()
        self._check([f"{job} is not queued" for job in jobs if job not in queued])
        return found, jobs

    def leave(self, worker: str) -> None:
        self.model.leave(worker)
        self._call("worker_leave", worker=worker)

    def republish(self, task_id: str) -> None:
        expected = self.model.republish(task_id)
        message = task_message(task_id, Q, delivery_tag="again")
        reply = self._call("republish", id=task_id, message=message)
        self._compare("republish", reply, expected)

    # -- dead letters ---------------------------------------------------------------------------

    def bury_message(self, text: str) -> None:
        letter = f"message-{self._next()}"
        self.model.bury_message(letter, text)
        error = json.dumps(UndeliverableMessage("why").as_dict())
        self._call("bury_message", id=letter, text=text, error=error)

    def purge(self, letters: Sequence[str]) -> None:
        expected = self.model.purge(letters)
        reply = self._call("purge", ids=list(letters))
        self._compare("purge", reply, expected)

    # -- webhooks -------------------------------------------------------------------------------

    def webhook_take(
        self, *, full: Sequence[str] = (), freed: Sequence[str] = (), lease_ms: int = 20_000
    ) -> tuple[str, int, bool] | None:
        """Id, number of the attempt, and whether it is written; None if none is due."""
        model = self.model
        due = {name: hook.due for name, hook in model.webhooks.items() if model.webhook(name)}
        arguments = {"lease_ms": lease_ms, "freed": list(freed), "full": list(full)}
        reply, published = self._run("webhook_take", **arguments)
        # When a parked one is due again is the script's choice, and an expired one may be dropped.
        times = self.state.value(f"{Q}:webhooks", {})
        model.webhooks = {
            name: hook for name, hook in model.webhooks.items() if name in due or name in times
        }
        for name in due:
            model.webhooks[name].due = int(times.get(name, due[name]))
        taken = None
        if reply and reply != b"more":
            task_id, _, _, _, number, payload = reply
            taken = task_id.decode(), number, payload is not None
            if due[taken[0]] > self.now and not freed:
                raise Wrong(f"the webhook of {taken[0]} is not due")
            self._compare("attempt", number, model.webhook_take(taken[0], lease_ms))
            self._compare("written", taken[2], model.webhooks[taken[0]].written)
        elif not full:
            late = [name for name in due if due[name] <= self.now]
            self._check([f"{name} is due and was not taken" for name in late])
        self._check_all(published)
        return taken

    def webhook_write(self, task_id: str, attempt: int) -> None:
        expected = self.model.webhook_write(task_id, attempt)
        reply = self._call("webhook_write", id=task_id, attempt=attempt, payload="payload")
        self._compare("webhook_write", reply, expected)

    def webhook_retry(self, task_id: str, attempt: int, pause_ms: int) -> None:
        expected = self.model.webhook_retry(task_id, attempt, pause_ms)
        reply = self._call("webhook_retry", id=task_id, attempt=attempt, pause_ms=pause_ms)
        self._compare("webhook_retry", reply, expected)

    def webhook_settle(self, task_id: str) -> None:
        self.model.webhook_settle(task_id)
        self._call("webhook_settle", id=task_id)

    # -- the world ------------------------------------------------------------------------------

    def delete_record(self, task_id: str) -> None:
        self.model.delete_record(task_id)
        self._commands(["DEL", KEYS.job(task_id)])

    def _next(self) -> str:
        """A name that nothing else has."""
        self.made += 1
        return str(self.made)

    # -- running and comparing ------------------------------------------------------------------

    def _run(self, script: str, **arguments: Any) -> tuple[Any, list[str]]:
        reply, self.state, published = self.timeline.run(self.state, self.now, script, arguments)
        return reply, published

    def _call(self, script: str, **arguments: Any) -> Any:
        """After the model has done the same. Returns the reply."""
        reply, published = self._run(script, **arguments)
        self._check_all(published)
        return reply

    def _check_all(self, published: list[str]) -> None:
        self._compare("announced", sorted(published), sorted(self.model.announced))
        self.model.announced.clear()
        self._check(differences(self.model, self.state))

    def _commands(self, *commands: list[Any]) -> None:
        _, self.state, _ = self.timeline.run(self.state, self.now, "commands", commands)

    def _compare(self, what: str, there: Any, expected: Any) -> None:
        if there != expected:
            raise Wrong(f"{what}: the script says {there!r}, the model {expected!r}")

    def _check(self, wrong: list[str]) -> None:
        if wrong:
            raise Wrong("; ".join(wrong))


def _fields(flat: list[bytes]) -> dict[str, str]:
    text = [part.decode() for part in flat]
    return dict(zip(text[::2], text[1::2], strict=True))


def _about(message: str) -> str:
    found = re.search(r'"id": "([^"]+)"', message)
    assert found
    return found[1]


def all_lanes() -> list[str]:
    return [lane for model in MODELS for lane in lanes_of(model)]
