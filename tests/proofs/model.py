"""What the store's scripts have to do, as a plain Python model.

Each method is one call of a script: it returns the reply and changes the model. Nothing here knows
Redis; differences.py compares the model with what is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from shared.job.keys import HEARTBEAT_SECONDS, job_of, lanes_of, part_of
from shared.settings import Settings
from shared.tiling import PART_PASSES

ABSENT_MS = int(3 * HEARTBEAT_SECONDS * 1000)
WORKER_ABSENT_MS = ABSENT_MS + 1000
GATEWAY_ABSENT_MS = 10_000
ORPHAN_GRACE_MS = 60_000
WEBHOOK_TTL_MS = 2 * 86_400_000
MODEL_TTL_MS = 7 * 86_400_000
MODELS = ("m", "n")
"""All that the proofs know. A service of its own has as many as its workers announce."""


@dataclass(slots=True)
class Job:
    id: str
    owner: str
    bytes: int
    params: str
    pixels: int
    webhook: bool
    model: str
    lane: str
    seq: int
    created: int
    state: str = "queued"
    attempts: int = 0
    worker: str = ""
    error: str = ""
    ended: int = 0
    deleted: bool = False
    """Its record is gone: it has expired, or somebody deleted it."""
    events: list[str] = field(default_factory=list)
    events_expire: int = 0
    parts: int = 0
    """In how many it is done, if in several."""
    open: int = 0
    """How many of them have not delivered."""

    @property
    def is_part(self) -> bool:
        return self.id != job_of(self.id)

    @property
    def work(self) -> int:
        return PART_PASSES if self.is_part else 1

    @property
    def live(self) -> bool:
        return self.state in ("queued", "processing")


@dataclass(slots=True)
class Request:
    """A job to accept."""

    id: str
    bytes: int = 5
    params: str = "{}"
    pixels: int = 12
    webhook: bool = False
    parts: int = 1

    @property
    def places(self) -> list[str]:
        """The ids that wait for it."""
        return [part_of(self.id, n) for n in range(self.parts)] if self.parts > 1 else [self.id]


@dataclass(slots=True)
class DeadLetter:
    bytes: int
    died: int
    expired: bool = False


@dataclass(slots=True)
class Webhook:
    due: int
    made: int
    attempts: int = 0
    written: bool = False
    expired: bool = False


class Model:
    """Times are milliseconds. `now` is set by the caller."""

    def __init__(self, settings: Settings, now: int = 0) -> None:
        self.settings, self.now = settings, now
        self.lease_ms = int(settings.lease_seconds * 1000)
        self.max_queue_ms = settings.max_queue_seconds * 1000
        self.result_ttl_ms = settings.result_ttl_seconds * 1000
        self.record_ttl_ms = settings.record_ttl_seconds * 1000
        self.jobs: dict[str, Job] = {}
        self.models: dict[str, int] = {}
        """When each was last served, or got a job."""
        self.workers: dict[str, tuple[int, tuple[str, ...]]] = {}
        """Worker: when it last reported, and the models that it serves."""
        self.lanes: dict[str, list[str]] = {
            lane: [] for model in MODELS for lane in lanes_of(model)
        }
        """Ids in the order in which they were accepted. A job whose record was deleted keeps its
        place until a script comes across it."""
        self.clients: dict[tuple[str, str], tuple[int, str]] = {}
        """Model and owner: number of queued jobs, lane."""
        self.leases: dict[str, int] = {}
        self.images: dict[str, int] = {}
        """Id: when the upload expires."""
        self.idempotency: dict[str, tuple[str, str, int]] = {}
        """Key: id, fingerprint, when it expires."""
        self.dead: dict[str, DeadLetter] = {}
        self.webhooks: dict[str, Webhook] = {}
        self.counts: Counter[str] = Counter()
        self.announced: list[str] = []
        """Messages on the channel of changes."""
        self.seq = 0
        self.swept = self.grace_until = 0
        self.gateway_swept = self.orphans_from = 0

    def copy(self) -> Model:
        twin = Model.__new__(Model)
        vars(twin).update(vars(self))
        twin.jobs = {name: replace(job, events=[*job.events]) for name, job in self.jobs.items()}
        twin.lanes = {name: [*lane] for name, lane in self.lanes.items()}
        twin.models, twin.workers = {**self.models}, {**self.workers}
        twin.webhooks = {name: replace(hook) for name, hook in self.webhooks.items()}
        twin.clients, twin.leases, twin.images = {**self.clients}, {**self.leases}, {**self.images}
        twin.idempotency, twin.dead = {**self.idempotency}, {**self.dead}
        twin.counts, twin.announced = Counter(self.counts), [*self.announced]
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "settings"}

    # -- what is there --------------------------------------------------------------------------

    def record(self, task_id: str) -> Job | None:
        job = self.jobs.get(task_id)
        if (
            job is None
            or job.deleted
            or (not job.live and self.now >= job.ended + self.result_ttl_ms)
        ):
            return None
        return job

    def events(self, job: Job) -> list[str]:
        """The states that its stream still has; all of them unless the clock jumps."""
        return [] if self.now >= job.events_expire else job.events

    def has_image(self, task_id: str) -> bool:
        return self.images.get(task_id, 0) > self.now

    def queued(self, *models: str) -> list[str]:
        """Of these models, or of all."""
        return [
            task_id
            for model in models or MODELS
            for lane in lanes_of(model)
            for task_id in self.lanes[lane]
        ]

    def queued_bytes(self, *models: str) -> int:
        return sum(self.jobs[task_id].bytes for task_id in self.queued(*models))

    def position(self, task_id: str) -> int:
        """Its turn if the lanes of its model are served evenly: as much work of each of the others
        comes first. A job in parts has the turn of its first part."""
        whole = self.jobs[task_id]
        first = part_of(task_id, 0) if whole.parts else task_id
        lane = self.lanes[whole.lane]
        if first not in lane:  # somebody has deleted it
            return 0
        turn = self._work(lane[: lane.index(first)]) + 1
        others = [self.lanes[name] for name in lanes_of(whole.model) if name != whole.lane]
        return turn + sum(min(self._work(other), turn) for other in others)

    def queued_work(self, model: str) -> int:
        return self._work(self.queued(model))

    def _work(self, lane: Sequence[str]) -> int:
        return sum(self.jobs[task_id].work for task_id in lane)

    # -- steps that several calls take ----------------------------------------------------------

    def _join(self, job: Job) -> None:
        lane = self.lanes[job.lane]
        lane.append(job.id)
        lane.sort(key=lambda task_id: self.jobs[task_id].seq)
        client = job.model, job.owner
        number, _ = self.clients.get(client, (0, ""))
        self.clients[client] = (number + 1, job.lane)

    def _leave(self, job: Job) -> None:
        self.lanes[job.lane].remove(job.id)
        client = job.model, job.owner
        number, lane = self.clients[client]
        if number > 1:
            self.clients[client] = (number - 1, lane)
        else:
            del self.clients[client]

    def _start(self, job: Job, worker: str) -> None:
        self._leave(job)
        job.state, job.worker, job.attempts = "processing", worker, job.attempts + 1
        whole = self.jobs[job_of(job.id)]
        if whole is job or whole.state == "queued":
            whole.state, whole.attempts = "processing", job.attempts
            self._announce(whole, "processing", self.record_ttl_ms)
        self.leases[job.id] = self.now + self.lease_ms
        self.counts["attempts"] += 1

    def _close(self, job: Job, state: str, error: str = "") -> None:
        """`job` may be a part of the job that ends."""
        job = self.jobs[job_of(job.id)]
        assert job.live, f"{job.id} ends twice"
        for number in range(job.parts):
            self._drop_part(part_of(job.id, number))
        job.state, job.ended, job.error = state, self.now, error
        self._announce(job, state, self.result_ttl_ms)
        self.images.pop(job.id, None)
        self.counts[f"jobs:{state}"] += 1
        if error:
            self.counts[f"failed:{error}"] += 1
        if job.webhook:
            self.webhooks[job.id] = Webhook(due=self.now, made=self.now)

    def _drop_part(self, task_id: str) -> None:
        if job := self.jobs.get(task_id):
            whole = self.record(job_of(task_id))
            if task_id in self.lanes[job.lane] and (whole or not job.deleted):
                self._leave(job)
            if task_id not in self.lanes[job.lane]:
                del self.jobs[task_id]
            self.leases.pop(task_id, None)

    def _drop_orphan(self, task_id: str) -> bool:
        whole = job_of(task_id)
        if whole == task_id or self.record(whole):  # parts of a job that has ended are gone
            return False
        self._drop_part(task_id)
        return True

    def _record(self, job: Job, state: str, ttl_ms: int) -> None:
        job.events = [*self.events(job), state]
        job.events_expire = self.now + ttl_ms

    def _announce(self, job: Job, state: str, ttl_ms: int) -> None:
        self._record(job, state, ttl_ms)
        self.announced.append(f"{job.id} {state}")

    def _overdue(self, job: Job) -> bool:
        return job.state == "queued" and self.now - job.created > self.max_queue_ms

    def expire_if_overdue(self, task_id: str) -> bool:
        if self._drop_orphan(task_id):
            return True
        job = self.record(task_id)
        if job is None or not self._overdue(job):
            return False
        if not job.parts:
            self._leave(job)
        self._close(job, "expired")
        return True

    def expire_overdue(self) -> None:
        for lane in self.lanes.values():
            for task_id in list(lane):
                if task_id not in self.jobs:
                    continue  # a part of a job that has just ended
                if self.jobs[task_id].deleted:
                    self._leave(self.jobs[task_id])
                elif not self.expire_if_overdue(task_id):
                    break

    # -- gateways -------------------------------------------------------------------------------

    def store_image(self, task_id: str) -> None:
        self.images[task_id] = self.now + self.record_ttl_ms

    def accept(
        self,
        owner: str,
        requests: Sequence[Request],
        *,
        model: str = MODELS[0],
        adopt: bool = False,
        key: str = "",
        fingerprint: str = "",
    ) -> tuple[str, list[str]]:
        """The status, and the ids of the jobs that the answer shows."""
        if known := [r.id for r in requests if self.record(r.id)]:
            return "accepted", known
        earlier, its_fingerprint, expires = self.idempotency.get(key, ("", "", 0))
        if expires > self.now and self.record(earlier):
            self._drop_images(requests)
            return ("replayed", [earlier]) if its_fingerprint == fingerprint else ("conflict", [])
        if not all(self.has_image(request.id) for request in requests):
            self._drop_images(requests)
            return "unstored", []
        size = self.queued_bytes(model) + sum(request.bytes for request in requests)
        number = len(self.queued(model)) + sum(request.parts for request in requests)
        max_jobs, max_bytes = self.limits(model)
        if not adopt and (number > max_jobs or size > max_bytes):
            self.counts["refused"] += len(requests)
            self._drop_images(requests)
            return "full", []
        self.models.setdefault(model, self.now)
        if (model, owner) in self.clients:
            lane = self.clients[model, owner][1]
        else:
            lane = min(lanes_of(model), key=lambda name: self._work(self.lanes[name]))
        for r in requests:
            self.seq += 1
            self.jobs[r.id] = Job(
                r.id, owner, r.bytes, r.params, r.pixels, r.webhook, model, lane, self.seq, self.now
            )
            self._record(self.jobs[r.id], "queued", self.record_ttl_ms)
            if r.parts == 1:
                self._join(self.jobs[r.id])
            else:
                self._add_parts(self.jobs[r.id], r.parts)
        self.counts["accepted"] += len(requests)
        if key:
            expires = self.now + self.record_ttl_ms
            self.idempotency[key] = (requests[0].id, fingerprint, expires)
        return "accepted", [request.id for request in requests]

    def _add_parts(self, job: Job, parts: int) -> None:
        """The last one stands for the upload."""
        job.parts = job.open = parts
        for number in range(parts):
            self.seq += 1
            task_id, size = part_of(job.id, number), job.bytes if number == parts - 1 else 0
            part = replace(
                job, id=task_id, bytes=size, seq=self.seq, events=[], events_expire=0, parts=0
            )
            self.jobs[task_id] = part
            self._join(part)

    def limits(self, model: str) -> tuple[int, int]:
        """Jobs and bytes of a model that may wait: of several, each may fill three quarters of what
        the others leave."""
        others = [name for name in MODELS if name != model]
        alone = not self.models.keys() - {model}
        share = 1 if alone or not self.queued(model) else 0.75
        return (
            ceil((self.settings.max_queue_jobs - len(self.queued(*others))) * share),
            ceil((self.settings.max_queue_bytes - self.queued_bytes(*others)) * share),
        )

    def _drop_images(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.images.pop(request.id, None)

    def cancel(self, task_id: str) -> str:
        self.expire_if_overdue(task_id)
        job = self.record(task_id)
        if job is None or not job.live:
            return "finished"
        if job.state == "queued" and not job.parts:
            self._leave(job)
        self.leases.pop(task_id, None)
        self._close(job, "cancelled")
        return "cancelled"

    def sweep(self) -> None:
        self.expire_overdue()
        absent = self.now - self.gateway_swept > GATEWAY_ABSENT_MS
        if absent or self.orphans_from > self.now + ORPHAN_GRACE_MS:
            self.orphans_from = self.now + ORPHAN_GRACE_MS
        self.gateway_swept = self.now
        if self.now >= self.orphans_from:
            for task_id in self._lapsed(self.now - self.max_queue_ms):
                self.leases.pop(task_id, None)
                self._drop_orphan(task_id)
                if job := self.record(task_id):
                    self._close(job, "expired")

        for job in [*self.jobs.values()]:
            overdue = job.live and job.created < self.now - self.max_queue_ms
            if job.parts and overdue and self.record(job.id) and not self._parts_of(job):
                self._close(job, "expired")

    def _parts_of(self, job: Job) -> list[str]:
        """Those that have a record."""
        return [name for n in range(job.parts) if self.record(name := part_of(job.id, n))]

    def recount(self) -> int:
        """How many places of deleted jobs it takes away."""
        gone = 0
        for task_id in self.queued():
            orphan, job = self._drop_orphan(task_id), self.jobs.get(task_id)
            if job and job.deleted:
                self._leave(job)
            gone += orphan or job is None or job.deleted
        used = {model for _, models in self.workers.values() for model in models}
        used |= {job.model for name in self.leases if (job := self.record(name))}
        for model, seen in [*self.models.items()]:
            if seen <= self.now - MODEL_TTL_MS and model not in used and not self.queued(model):
                del self.models[model]
        return gone

    # -- workers --------------------------------------------------------------------------------

    def claim(self, task_id: str, worker: str, models: Collection[str] = MODELS) -> str:
        self.expire_if_overdue(task_id)
        job = self.record(task_id)
        if job is None:
            return "unknown"
        if job.parts:
            return "in parts"
        if job.state == "queued":
            if job.model not in models:
                return "elsewhere"
            self._start(job, worker)
            return "claimed"
        return "running" if job.state == "processing" else "finished"

    def claim_more(self, task_id: str, attempt: int, worker: str, taken: Iterable[str]) -> None:
        """Which jobs join is the script's choice; here is what it may choose from."""
        if not (others := [*map(self.record, taken)]):
            return
        first, room = self.jobs[task_id], self.settings.max_image_pixels - self.jobs[task_id].pixels
        for other in others:
            assert not first.is_part, f"{task_id} is a part"
            assert first.state == "processing", f"{task_id} is not running"
            assert first.attempts == attempt, f"{task_id} is at another attempt"
            assert other is not None
            assert other.state == "queued", f"{other.id} is {other.state}"
            assert not self._overdue(other), f"{other.id} has waited too long"
            assert other.attempts == 0, f"{other.id} was lost before"
            assert other.model == first.model, f"{other.id} is for another model"
            assert not other.is_part, f"{other.id} is a part"
            assert other.params == first.params, f"{other.id} has other parameters"
            assert 0 < other.pixels <= room, f"{other.id} does not fit into memory"
            room -= other.pixels
            self._start(other, worker)

    def finish(self, task_id: str, attempt: int, state: str, error: str = "") -> str:
        job = self._held(task_id, attempt)
        if job is None:
            return "stale"
        self.leases.pop(task_id, None)
        self._close(job, state, error)
        return "committed"

    def deliver(self, task_id: str, attempt: int) -> str:
        job = self._held(task_id, attempt)
        if job is None:
            return "stale"
        whole = self.jobs[job_of(task_id)]
        if whole.open == 1:
            return "last"
        whole.open -= 1
        self._drop_part(task_id)
        return "delivered"

    def _held(self, task_id: str, attempt: int) -> Job | None:
        self._drop_orphan(task_id)
        job = self.record(task_id)
        if job is None or job.parts or job.state != "processing" or job.attempts != attempt:
            self.counts["stale_commits"] += 1
            return None
        return job

    def abandon(
        self, task_id: str, reason: str, error: str, *, attempt: int = 0, worker: str = ""
    ) -> str:
        """By the attempt's number or by its worker."""
        self._drop_orphan(task_id)
        job = self.record(task_id)
        if (
            job is None
            or job.state != "processing"
            or (attempt and job.attempts != attempt)
            or (worker and job.worker != worker)
        ):
            return "stale"
        self.leases.pop(task_id, None)
        self.counts[f"lost:{reason}"] += 1
        if job.attempts < self.settings.max_attempts:
            job.state = "queued"
            if not job.is_part:
                self._announce(job, "queued", self.record_ttl_ms)
            self._join(job)
            return "requeued"
        self._close(job, "failed", error)
        whole = self.jobs[job_of(task_id)]
        self._bury(whole.id, whole.bytes)
        return "dead"

    def heartbeat(
        self, worker: str, running: Iterable[str], models: Collection[str] = MODELS
    ) -> list[tuple[str, int]]:
        """The attempts that it gives up for lost: id, number."""
        for task_id in running:
            job = self.record(task_id)
            if (
                job
                and job.state == "processing"
                and job.worker == worker
                and task_id in self.leases
            ):
                self.leases[task_id] = self.now + self.lease_ms
        if self.now < self.swept:  # the clock was set back: no lease may last longer than one
            latest = self.now + self.lease_ms
            self.leases = {name: min(ends, latest) for name, ends in self.leases.items()}
            self.workers = {
                name: (min(seen, self.now), models) for name, (seen, models) in self.workers.items()
            }
        self.workers[worker] = self.now, tuple(models)
        self.workers = {
            name: (seen, models)
            for name, (seen, models) in self.workers.items()
            if seen > self.now - WORKER_ABSENT_MS
        }
        self.models.update(dict.fromkeys(models, self.now))
        absent = self.now - self.swept > ABSENT_MS
        if absent or self.grace_until > self.now + self.lease_ms:
            self.grace_until = self.now + self.lease_ms
        self.swept = self.now
        lost = []
        if self.now >= self.grace_until:
            for task_id in self._lapsed(self.now):
                if job := self.record(task_id):
                    lost.append((task_id, job.attempts))
                else:
                    del self.leases[task_id]
        self.expire_overdue()
        return lost

    def leave(self, worker: str) -> None:
        self.workers.pop(worker, None)

    def republish(self, task_id: str) -> int:
        job = self.record(task_id)
        if job is None or job.state != "queued":
            return 0
        self.counts["republished"] += 1
        return 1

    def _lapsed(self, until: int) -> list[str]:
        lapsed = [(ends, task_id) for task_id, ends in self.leases.items() if ends <= until]
        return [task_id for _, task_id in sorted(lapsed)]

    # -- dead letters ---------------------------------------------------------------------------

    def bury_message(self, letter_id: str, text: str) -> None:
        self._bury(letter_id, len(text))

    def _bury(self, letter_id: str, size: int) -> None:
        self.dead[letter_id] = DeadLetter(size, self.now)
        settings = self.settings
        while self.dead:
            oldest = min(self.dead, key=lambda name: (self.dead[name].died, name))
            if (
                len(self.dead) <= settings.dead_max_jobs
                and sum(letter.bytes for letter in self.dead.values()) <= settings.dead_max_bytes
                and self.dead[oldest].died >= self.now - settings.dead_ttl_seconds * 1000
            ):
                break
            del self.dead[oldest]

    def kept(self, letter: DeadLetter) -> bool:
        """Whether a letter's record is still there."""
        ttl_ms = self.settings.dead_ttl_seconds * 1000
        return not letter.expired and self.now < letter.died + ttl_ms

    def purge(self, letter_ids: Iterable[str]) -> int:
        return sum(self.dead.pop(letter_id, None) is not None for letter_id in letter_ids)

    # -- webhooks -------------------------------------------------------------------------------

    def webhook(self, task_id: str) -> Webhook | None:
        hook = self.webhooks.get(task_id)
        if hook is None or hook.expired or self.now >= hook.made + WEBHOOK_TTL_MS:
            return None
        return hook

    def webhook_take(self, task_id: str, lease_ms: int) -> int:
        """The number of the attempt. Which one of those that are due is the script's choice."""
        hook = self.webhook(task_id)
        assert hook is not None, f"{task_id} has no webhook"
        hook.attempts += 1
        hook.due = self.now + lease_ms
        return hook.attempts

    def webhook_write(self, task_id: str, attempt: int) -> int:
        hook = self.webhook(task_id)
        if hook is None or hook.attempts != attempt:
            return 0
        hook.written, hook.attempts, hook.due = True, 0, self.now
        return 1

    def webhook_retry(self, task_id: str, attempt: int, pause_ms: int) -> int:
        hook = self.webhook(task_id)
        if hook is None or hook.attempts != attempt:
            return 0
        hook.due = self.now + pause_ms
        return 1

    def webhook_settle(self, task_id: str) -> None:
        self.webhooks.pop(task_id, None)

    # -- the world ------------------------------------------------------------------------------

    def expire(self) -> None:
        """Forget what has no time left. It stays forgotten if the clock is set back."""
        self.images = {name: end for name, end in self.images.items() if end > self.now}
        self.idempotency = {
            name: known for name, known in self.idempotency.items() if known[2] > self.now
        }
        for job in self.jobs.values():
            job.events = self.events(job)
            job.deleted = self.record(job.id) is None
        for name, hook in self.webhooks.items():
            hook.expired = self.webhook(name) is None
        for letter in self.dead.values():
            letter.expired = not self.kept(letter)

    def delete_record(self, task_id: str) -> None:
        self.jobs[task_id].deleted = True

    def delete_image(self, task_id: str) -> None:
        self.images.pop(task_id, None)
