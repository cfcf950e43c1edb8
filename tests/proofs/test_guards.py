"""Guards that histories of a few jobs seldom or never reach, each at a state made for it.

`python -m tests.proofs.mutations` takes each guard out, and these tests have to notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shared.job.celery_result import success_meta
from shared.job.keys import HEARTBEAT_SECONDS, LANES, result_key
from shared.job.message import first_message, task_message
from tests.proofs.differences import Q
from tests.proofs.model import MODEL_TTL_MS, MODELS, ORPHAN_GRACE_MS, Request
from tests.proofs.server import small
from tests.proofs.simulation import VERSION, Simulation
from tests.proofs.timeline import Timeline

OWNER = "ann"
MODEL = MODELS[0]
FIRST_LIST = f"{Q}.{MODEL}.0"
SECOND_US = 1_000_000
SWEPT_AT_ONCE = 256


@pytest.fixture
def service(proof_port: int) -> Iterator[Simulation]:
    """Room for many jobs."""
    bounds = {"max_queue_jobs": 1000, "max_queue_bytes": 1_000_000, "max_image_pixels": 1000}
    with Timeline(proof_port, small(**bounds)) as timeline:
        yield Simulation(timeline)


def submit(service: Simulation, *ids: str, owner: str = OWNER, pixels: int = 12) -> None:
    for task_id in ids:
        service.store_image(task_id)
        assert service.accept(owner, [Request(task_id, pixels=pixels)]) == "accepted"


def call(service: Simulation, script: str, **arguments: Any) -> Any:
    """Without the model: it knows nothing of these states."""
    return service._run(script, **arguments)[0]


def stats(service: Simulation) -> dict[str, str]:
    return dict(service.state.value(f"{Q}:stats", {}))


def marks(service: Simulation) -> dict[str, str]:
    return dict(service.state.value(f"{Q}:marks", {}))


# -- accepting ------------------------------------------------------------------------------------


def test_a_job_without_a_trace_has_none(service: Simulation) -> None:
    submit(service, "a")
    assert "traceparent" not in service.read("a")
    assert "webhook_url" not in service.read("a")


def test_an_adopted_job_gets_no_message(service: Simulation) -> None:
    """Celery has delivered it already."""
    service.store_image("a")
    assert service.accept(OWNER, [Request("a")], adopt=True) == "accepted"
    assert service.messages("m.0") == []


def test_a_new_client_gets_the_shortest_lane(service: Simulation) -> None:
    """None of which is empty."""
    for number in range(LANES):
        for job in range(1 if number == 5 else 2):
            submit(service, f"{number}-{job}", owner=f"owner {number}")
    submit(service, "late", owner="late")
    assert service.read("late")["lane"] == "m.5"


# -- claiming -------------------------------------------------------------------------------------


def test_the_mark_of_a_lane_is_its_latest_first_attempt(service: Simulation) -> None:
    submit(service, "a", "b", "c")
    service.heartbeat("w1", [], ready=1)
    first = service.claim("a", "w1")
    (other,) = service.claim_more("a", first, "w1", 1)
    assert other == "b"
    assert marks(service)["taken:m.0"] == "1", "what joins a pass goes ahead of the others"
    service.abandon("b", "worker_lost", worker="w1")
    service.claim("b", "w1")
    assert marks(service)["taken:m.0"] == "1", "a second attempt says nothing of the lane's order"
    service.claim("c", "w1")
    submit(service, "d", "e")
    service.claim("e", "w1")
    service.claim("d", "w1")
    assert marks(service)["taken:m.0"] == "5"


@pytest.mark.parametrize("unknown", ["a", "b"])
def test_a_picture_of_unknown_size_shares_no_pass(service: Simulation, unknown: str) -> None:
    for task_id in ("a", "b"):
        submit(service, task_id, pixels=0 if task_id == unknown else 12)
    service.heartbeat("w1", [], ready=1)
    first = service.claim("a", "w1")
    assert service.claim_more("a", first, "w1", 4) == []


def test_a_message_that_names_no_job_stays_where_it_is(service: Simulation) -> None:
    """Beside one that shares a pass, and before those that a claim drops."""
    foreign = json.dumps({"origin": "yolo-queue", "task": "else"})
    submit(service, "a", "b", "c")
    service.heartbeat("w1", [], ready=1)
    service._commands(["RPUSH", FIRST_LIST, foreign])
    first = service.claim("a", "w1")
    assert service.claim_more("a", first, "w1", 1) == ["b"]
    texts = service.state.value(FIRST_LIST)
    assert foreign in texts
    assert first_message("b", Q) not in texts


def test_a_long_message_is_not_dropped(service: Simulation) -> None:
    """It may carry a picture, and is not ours."""
    submit(service, "a")
    service.claim("a", "w1")
    long = task_message("a", Q, delivery_tag="x" * 10_000)
    service._commands(["DEL", FIRST_LIST], ["RPUSH", FIRST_LIST, long])
    call(service, "claim", id="a", worker="w1", models=MODELS)
    assert service.state.value(FIRST_LIST) == [long]


def test_a_queued_job_without_its_share_of_the_totals_can_be_claimed(service: Simulation) -> None:
    submit(service, "a")
    service._commands(["DEL", f"{Q}:owed"])
    assert call(service, "claim", id="a", worker="w1", models=MODELS)[0] == b"claimed"


# -- committing -----------------------------------------------------------------------------------


def test_nothing_is_committed_without_its_result(service: Simulation) -> None:
    submit(service, "a")
    service.claim("a", "w1")
    asked = {"id": "a", "attempt": 1, "state": "completed", "run_us": 1, "error": ""}
    assert call(service, "finish", staged="nothing", **asked) == b"unstaged"
    assert service.read("a")["state"] == "processing"


def test_a_producer_that_waits_for_its_result_gets_it(service: Simulation, proof_port: int) -> None:
    submit(service, "a", "b")
    attempt = service.claim("a", "w1")
    meta = success_meta("a", {}).decode()
    with redis.Redis(port=proof_port) as client, client.pubsub() as waiting:
        for task_id in ("a", "b"):
            waiting.subscribe(result_key(task_id))
            assert waiting.get_message(timeout=5)
        service._commands(["SET", "staged", meta])
        asked = {"id": "a", "attempt": attempt, "state": "completed", "run_us": 1, "error": ""}
        _, published = service._run("finish", staged="staged", **asked)
        assert published == [meta, "a completed"]
        # An end without a result publishes none.
        service.model.now += 10 * service.timeline.settings.max_queue_seconds * 1000
        _, published = service._run("sweep")
        assert published == ["b expired"]


def finish(service: Simulation, task_id: str, *, run_us: int = SECOND_US) -> None:
    attempt = service.claim(task_id, "w1")
    assert service.finish(task_id, attempt, run_us=run_us) == "committed"


def drain_us(service: Simulation) -> int:
    """Of the whole service, and of the one model that has jobs."""
    of_model = service.state.value(f"{Q}:model:{MODEL}")
    assert of_model.get("drain_us") == stats(service).get("drain_us")
    return int(of_model.get("drain_us", 0))


def test_the_time_between_two_ends_is_measured_while_jobs_wait(service: Simulation) -> None:
    submit(service, *(f"job {number}" for number in range(9)))
    finish(service, "job 0")
    assert drain_us(service) == 0, "there is nothing before it"
    service.advance(1000)
    finish(service, "job 1")
    assert drain_us(service) == SECOND_US, "the first sample counts whole"
    service.advance(2000)
    finish(service, "job 2")
    assert drain_us(service) == 1_050_000, "later ones by a twentieth"
    service.advance(3100)
    finish(service, "job 3")
    assert drain_us(service) == 1_050_000, "nobody worked in between"
    service.jump(-5000)
    finish(service, "job 4")
    assert drain_us(service) == 1_050_000, "the clock was set back"
    service.advance(40_000)
    finish(service, "job 5", run_us=50 * SECOND_US)
    assert drain_us(service) == 40 * SECOND_US, "what was measured long ago is forgotten"


def test_no_time_is_measured_over_an_empty_queue(service: Simulation) -> None:
    submit(service, "a")
    finish(service, "a")
    service.advance(1000)
    submit(service, "b", "c")
    finish(service, "b")
    assert drain_us(service) == 0


# -- estimates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "interval_us"),
    [
        ({}, 0),
        ({"ready": 2, "run": 900, "drained": 700}, 700),
        ({"ready": 2, "run": 900, "drained": 700, "drained_ago_ms": 31_000}, 450),
        ({"ready": 2, "run": 900}, 450),
        ({"ready": 0, "run": 900, "drained": 700}, 0),
        ({"ready": 2, "run": 900, "drained": 700, "reported_ago_ms": 11_000}, 0),
    ],
    ids=["nothing", "measured", "measured long ago", "run time", "no process", "no report"],
)
def test_the_interval_between_two_jobs(
    service: Simulation, known: dict[str, int], interval_us: int
) -> None:
    fields = {
        "ready_processes": known.get("ready", 0),
        "run_us": known.get("run", 0),
        "drain_us": known.get("drained", 0),
        "drain_ms": service.now - known.get("drained_ago_ms", 0),
    }
    flat = [str(part) for pair in fields.items() for part in pair]
    reported_ms = str(service.now - known.get("reported_ago_ms", 0))
    service._commands(
        ["ZADD", f"{Q}:models", service.now, MODEL],
        ["HSET", f"{Q}:model:{MODEL}", *flat],
        ["HSET", f"{Q}:stats", *flat, "ready_processes_ms", reported_ms],
    )
    *_, of_all, (of_model,) = queue(service)
    assert (float(of_all), float(of_model[6])) == (interval_us, interval_us)


def queue(service: Simulation) -> Any:
    return call(service, "queue", descriptions=False)


def test_a_job_that_has_lost_its_place_has_no_position(service: Simulation) -> None:
    submit(service, "a")
    service._commands(["DEL", f"{Q}:lane:m.0"])
    view = call(service, "read", id="a")
    assert view[view.index(b"position") + 1] == b"0"


def test_a_position_is_for_jobs_that_wait_and_an_estimate_needs_a_worker(
    service: Simulation,
) -> None:
    submit(service, "a")
    waiting = service.read("a")
    assert "position" in waiting
    assert "eta_ms" not in waiting
    service.claim("a", "w1")
    assert "position" not in service.read("a")
    assert service.read("unknown") == {}


def test_the_age_of_a_job_whose_record_is_gone_is_unknown(service: Simulation) -> None:
    submit(service, "a")
    service.advance(1500)
    _, depth, _, _, oldest, *_ = queue(service)[-1][0]
    assert (depth, oldest) == (1, b"1500")
    service.delete_record("a")
    _, depth, _, _, oldest, *_ = queue(service)[-1][0]
    assert (depth, oldest) == (1, b"0")


# -- sweeping -------------------------------------------------------------------------------------


def test_a_sweep_ends_a_bounded_number_of_jobs(service: Simulation) -> None:
    """A script holds everybody up."""
    submit(service, *(f"job {number}" for number in range(SWEPT_AT_ONCE)))
    submit(service, *(f"other {number}" for number in range(10)), owner="bob")
    service.advance(1000 * service.timeline.settings.max_queue_seconds + 1)
    assert call(service, "sweep") == 1
    assert len(service.state.value(f"{Q}:lane:m.1")) == 10


def test_a_clock_that_is_set_back_does_not_make_the_grace_for_workers_longer(
    service: Simulation,
) -> None:
    service.sweep()
    service.jump(-3_600_000)
    service.sweep()
    assert int(stats(service)["orphans_from_ms"]) == service.now + ORPHAN_GRACE_MS


def test_a_lease_of_a_job_whose_record_is_gone_makes_none(service: Simulation) -> None:
    submit(service, "a")
    service.claim("a", "w1")
    service.delete_record("a")
    service.advance(1000 * service.timeline.settings.max_queue_seconds + service.model.lease_ms)
    service._commands(["HSET", f"{Q}:stats", "gateway_swept_ms", str(service.now)])
    call(service, "sweep")
    assert f"{Q}:leases" not in service.state.keys
    assert f"{Q}:job:a" not in service.state.keys


def test_a_dead_letter_without_its_picture_is_kept(service: Simulation) -> None:
    submit(service, "a")
    service.delete_image("a")
    for _ in range(service.timeline.settings.max_attempts):
        service.claim("a", "w1")
        outcome = service.abandon("a", "worker_lost", worker="w1")
    assert outcome == "dead"


def test_a_letter_whose_time_is_over_goes_when_the_next_one_comes(service: Simulation) -> None:
    service.bury_message("old")
    service.advance(1000 * service.timeline.settings.dead_ttl_seconds + 1)
    service.bury_message("new")
    assert len(service.state.value(f"{Q}:dead")) == 1


def test_a_letter_that_is_larger_than_all_may_be_is_dropped(service: Simulation) -> None:
    service.bury_message("x" * (service.timeline.settings.dead_max_bytes + 1))
    assert f"{Q}:dead" not in service.state.keys


# -- webhooks -------------------------------------------------------------------------------------


def test_a_webhook_waits_at_a_bound_once_however_often_its_time_comes(service: Simulation) -> None:
    service.store_image("a")
    service.accept(OWNER, [Request("a", webhook=True)])
    service.cancel("a")
    taken = service.webhook_take()
    assert taken
    service.webhook_write(*taken[:2])
    for _ in range(2):
        assert service.webhook_take(full=[f"owner:{OWNER}"]) is None
        service.advance(120_000)
    assert service.state.value(f"{Q}:webhooks-parked:owner:{OWNER}") == ["a"]


# -- lost messages --------------------------------------------------------------------------------


def beat(service: Simulation) -> list[str]:
    report = json.dumps({"ready": 1, "models": {MODEL: VERSION}})
    _, vanished, _ = call(service, "heartbeat", worker="w1", report=report, running=[])
    return [task_id.decode() for task_id in vanished]


def test_a_lane_without_jobs_has_no_time_at_which_it_was_overtaken(service: Simulation) -> None:
    submit(service, "a")
    beat(service)
    assert {"overtaken:m.0", "at:m.0"} <= marks(service).keys()
    assert "at:m.1" not in marks(service)
    finish(service, "a")
    beat(service)
    assert "at:m.0" not in marks(service)


def test_a_message_has_vanished_only_after_a_lease(service: Simulation) -> None:
    submit(service, "a")
    service.lose_message("m.0")
    assert beat(service) == []
    service.advance(1000)
    assert beat(service) == [], "it may be on its way to a worker"
    service.advance(service.model.lease_ms)
    assert beat(service) == ["a"]


def test_where_nobody_takes_messages_none_has_vanished(service: Simulation) -> None:
    """A job that was lost goes back to the front, before others that were taken since."""
    submit(service, "a")
    service.lose_message("m.0")
    elsewhere = json.dumps({"ready": 1, "models": {MODELS[1]: VERSION}})
    for _ in range(3):
        asked = {"worker": "w1", "report": elsewhere, "running": []}
        assert call(service, "heartbeat", **asked)[1] == []
        service.advance(service.model.lease_ms)
    assert beat(service) == [], "the wait begins with the first worker"
    service.advance(service.model.lease_ms)
    assert beat(service) == ["a"]


def test_vanished_messages_are_looked_for_in_one_lane_at_a_time(service: Simulation) -> None:
    """The next heartbeat has the next lane."""
    submit(service, "a")
    submit(service, "b", owner="bob")
    for lane in ("m.0", "m.1"):
        service.lose_message(lane)
    beat(service)
    service.advance(service.model.lease_ms)
    assert beat(service) == ["a"]
    assert beat(service) == ["b"]


def test_a_lane_that_has_lost_nothing_does_not_hold_up_the_next(service: Simulation) -> None:
    submit(service, "a")
    submit(service, "b", owner="bob")
    service.lose_message("m.1")
    beat(service)
    service.advance(service.model.lease_ms)
    assert beat(service) == ["b"]


@pytest.mark.parametrize("back_ms", [1, 60_000])
def test_a_clock_that_is_set_back_does_not_postpone_it(service: Simulation, back_ms: int) -> None:
    submit(service, "a")
    service.lose_message("m.0")
    beat(service)
    began = service.now
    service.advance(1000)
    beat(service)
    service.jump(-back_ms)
    beat(service)
    assert marks(service)["at:m.0"] == str(min(began, service.now))
    service.advance(service.model.lease_ms - (1000 - back_ms if back_ms == 1 else 0))
    assert beat(service) == ["a"]


def test_a_worker_renews_what_it_runs_alone(service: Simulation) -> None:
    submit(service, "a", "b")
    service.heartbeat("w1", [])
    service.claim("a", "w1")
    service.claim("b", "w2")
    service.advance(int(HEARTBEAT_SECONDS * 1000))
    service.heartbeat("w1", ["a", "b"])
    leases = service.state.value(f"{Q}:leases")
    assert leases["a"] == leases["b"] + HEARTBEAT_SECONDS * 1000


# -- models ---------------------------------------------------------------------------------------

OTHER = MODELS[1]


def of_models(service: Simulation) -> dict[str, tuple[Any, ...]]:
    """What queue.lua says of each: name, depth, in flight, age, ready, interval, its hash."""
    return {state[0].decode(): state for state in queue(service)[-1]}


def describe(service: Simulation, version: str, model: str = MODEL) -> None:
    call(service, "describe_model", model=model, version=version, description="{}")


def versions(service: Simulation) -> set[str]:
    names = service.state.value(f"{Q}:model:{MODEL}")
    return {name.removeprefix("version:") for name in names if name.startswith("version:")}


def test_a_process_is_ready_for_the_models_of_its_worker(service: Simulation) -> None:
    service.heartbeat("w1", [], ready=2, models=[MODEL])
    service.heartbeat("w2", [], ready=3, models=MODELS)
    assert {name: state[5] for name, state in of_models(service).items()} == {MODEL: 5, OTHER: 3}
    assert queue(service)[4] == 5
    service.leave("w2")
    assert {name: state[5] for name, state in of_models(service).items()} == {MODEL: 2, OTHER: 0}


def test_a_model_is_described_once_in_each_version(service: Simulation) -> None:
    report = {"ready": 1, "models": {MODEL: "one"}}
    asked = {"worker": "w1", "report": json.dumps(report), "running": []}
    assert call(service, "heartbeat", **asked)[2] == [MODEL.encode()]
    describe(service, "one")
    assert call(service, "heartbeat", **asked)[2] == []
    report["models"] = {MODEL: "two"}
    assert call(service, "heartbeat", **{**asked, "report": json.dumps(report)})[2] != []


def test_a_version_that_nobody_serves_is_forgotten_with_the_next(service: Simulation) -> None:
    submit(service, "a")  # so that the hash has other fields
    for worker, version in (("w1", "one"), ("w2", "two")):
        report = json.dumps({"ready": 1, "models": {MODEL: version}})
        call(service, "heartbeat", worker=worker, report=report, running=[])
        describe(service, version)
    assert versions(service) == {"one", "two"}, "both are served"
    service.leave("w1")
    assert versions(service) == {"one", "two"}, "what was served last can be asked for"
    describe(service, "three")
    assert versions(service) == {"two", "three"}
    assert service.state.value(f"{Q}:model:{MODEL}")["accepted"] == "1"


def test_classes_are_told_to_those_who_ask_and_the_task_to_all(service: Simulation) -> None:
    description = json.dumps({"task": "detect", "names": {"0": "bus"}})
    call(service, "describe_model", model=MODEL, version="one", description=description)
    for asked, text in ((False, '{"task": "detect"}'), (True, description)):
        (state,) = call(service, "queue", descriptions=asked)[-1]
        fields = dict(zip(state[7][::2], state[7][1::2], strict=True))
        assert fields[b"version:one"] == f"{service.now} {text}".encode()


def test_shared_passes_leave_processes_of_other_models_out_of_account(service: Simulation) -> None:
    """Four jobs for one process: the other model's three do not take a share."""
    submit(service, "a", "b", "c", "d")
    service.heartbeat("w1", [], ready=1, models=[MODEL])
    service.heartbeat("w2", [], ready=3, models=[OTHER])
    first = service.claim("a", "w1")
    assert service.claim_more("a", first, "w1", 3) == ["b", "c", "d"]


def test_a_models_total_is_counted_again(service: Simulation) -> None:
    submit(service, "a")
    service._commands(["HSET", f"{Q}:model:{MODEL}", "queued_bytes", "7"])
    corrected = call(service, "recount", every_ms=0)
    assert corrected == [f"queued_bytes of {MODEL} from 7 to 5".encode()]
    assert call(service, "recount", every_ms=0) == []


@pytest.mark.parametrize("why", ["nothing", "lately", "served", "waiting", "running"])
def test_a_model_that_is_not_used_any_more_is_forgotten(service: Simulation, why: str) -> None:
    """With all that is kept under its name."""
    bounds = {"max_queue_seconds": 8 * 86_400}
    with Timeline(service.timeline.port, small(**bounds)) as timeline:
        service.use(timeline)
        service.model = type(service.model)(timeline.settings, service.now)
        submit(service, "a")
        beat(service)
        if why != "waiting":
            service.claim("a", "w1")
        if why not in ("waiting", "running"):
            service.finish("a", 1)
        service._commands(["LPUSH", FIRST_LIST, "of a job that has ended"])
        beat(service)
        service.leave("w1")
        service.advance(MODEL_TTL_MS - (1 if why == "lately" else 0))
        if why == "served":
            # As if the clock had been set forward: a worker is there, and the time is long ago.
            report = json.dumps({"models": {MODEL: VERSION}})
            service._commands(["HSET", f"{Q}:workers", "w1", report])
        service._run("recount", every_ms=0)
        names = {name for name in service.state.keys if MODEL in name.split(":")[-1].split(".")}
        kept = {name for name in names if ":job:" not in name}
        marked = any(MODEL in name for name in marks(service))
        assert (
            bool(service.state.value(f"{Q}:models")) == bool(kept) == marked == (why != "nothing")
        )
