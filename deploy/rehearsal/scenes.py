# ruff: noqa: S108 - paths inside a container's root
"""Tries the images: the service, Flower, and the Space."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from deploy.rehearsal import inspections
from deploy.rehearsal.builder import Image
from deploy.rehearsal.containers import Container, left_in
from deploy.rehearsal.inspections import Finding
from deploy.rehearsal.service import (
    Trial,
    confined,
    get,
    healthy,
    library_lookups,
    memory_mib,
    open_ports,
    status_of,
    until,
)

Step = Callable[[str, Callable[[], object]], object]
API = "http://127.0.0.1:8000"
SPACE = "http://127.0.0.1:7860"
LOAD_SECONDS = 180
JOBS_AT_STOP = 6


def inspect(step: Step, api: Image, worker: Image) -> None:
    step("api: packages", lambda: inspections.no_packages(api, *NOT_IN_THE_GATEWAY))
    step("worker: OpenCV", lambda: inspections.no_libgl(worker))
    for name, image in (("api", api), ("worker", worker)):
        if image.state.user.partition(":")[0] in ("", "0", "root"):
            raise Finding(f"{name} runs as root")
    if api.state.env.get("HOST") != "0.0.0.0":  # noqa: S104
        raise Finding("the gateway listens on loopback alone: nothing outside could reach it")


NOT_IN_THE_GATEWAY = ("torch", "cv2", "numpy", "ultralytics", "openvino", "celery")


def try_service(step: Step, trial: Trial, api: Image, worker: Image) -> None:
    """Gateway and worker: start, health checks, a picture, drain, start again."""
    env = {"REDIS_URL": trial.start_redis(), "WORKER_CONCURRENCY": "1"}
    debug = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": "/tmp/ld-debug"}
    gateway = trial.start("api", api, env=env)
    working = trial.start("worker", worker, env=env | debug, tmpfs=("/tmp",))

    def come_up() -> str:
        until(lambda: healthy(gateway, api.state.healthcheck), seconds=30, what="api is healthy")
        status, words = working.execute(worker.state.healthcheck, seconds=15)
        if status == 0:
            raise Finding("the worker's health check passes before its model can be loaded")
        seconds = until(
            lambda: healthy(working, worker.state.healthcheck),
            seconds=LOAD_SECONDS,
            what="worker is healthy",
        )
        now = working.execute(worker.state.healthcheck, seconds=15)[1]
        return f"first '{words}', after {seconds:.0f} s '{now}'"

    with library_lookups(working) as asked:
        step("HEALTHCHECK of both, read-only roots", come_up)
        step("confinement of both", partial(_both_confined, gateway, working))
        step("a picture over HTTP", lambda: trial.detect(API))
        step("the worker's memory", lambda: f"{memory_mib(working):.0f} MiB, one process")
        step("the page's samples", _samples)
    step("libraries asked for", lambda: _no_display(asked))
    step("the baked export", lambda: _was_baked(trial.log("worker").read_text()))

    def drain() -> str:
        jobs = [trial.submit(API)["task_id"] for _ in range(JOBS_AT_STOP)]
        status, seconds = working.stop(60)
        states = [get(f"{API}/result/{job}")["status"] for job in jobs]
        if status or set(states) - {"completed", "queued"}:
            raise Finding(f"SIGTERM: exit status {status}, jobs {states}")
        done = states.count("completed")
        second = trial.start("worker", worker, env=env, tmpfs=("/tmp",))
        for job in jobs:
            until(
                partial(_is_completed, job),
                seconds=LOAD_SECONDS,
                what="a job that waited is done by the next worker",
            )
        second.kill()
        return (
            f"exit status 0 after {seconds:.1f} s with {done} of {len(jobs)} jobs done, the others "
            "done by the next worker"
        )

    step("SIGTERM to a worker with a backlog", drain)
    step("SIGTERM to the gateway", lambda: _stops(gateway.stop(40)))


def try_flower(step: Step, trial: Trial, worker: Image, compose: Path) -> None:
    """The command that docker-compose.yml gives the workers' image, and the check it has there."""
    service = yaml.safe_load(compose.read_text())["services"]["flower"]
    env = {"REDIS_URL": "redis://127.0.0.1:6379/0", "FLOWER_BASIC_AUTH": "rehearsal:rehearsal"}
    flower = trial.start(
        "flower",
        worker,
        env=env,
        command=tuple(service["command"]),
        tmpfs=("/tmp",),
        volumes=("/var/lib/flower",),
    )

    def come_up() -> str:
        check = tuple(service["healthcheck"]["test"][1:])
        until(lambda: healthy(flower, check), seconds=40, what="Flower is healthy")
        if (status := status_of("http://127.0.0.1:5555/")) != 401:
            raise Finding(f"Flower answers {status} to somebody without a password")
        return "healthy, and 401 without its password"

    step("Flower from the worker's image", come_up)
    step("SIGTERM to Flower", lambda: _stops(flower.stop(30)))


def try_space(step: Step, trial: Trial, space: Image) -> None:
    """One container with everything; it may write, as in a Space.

    Nothing of another scene may answer in its place.
    """
    if others := left_in(trial.folder):
        raise Finding(f"containers of another scene still run: {others}")
    running = trial.start("space", space, tmpfs=("/tmp",), read_only=False)

    def come_up() -> str:
        check = space.state.healthcheck
        seconds = until(lambda: healthy(running, check), seconds=LOAD_SECONDS, what="/ready")
        if open_ports() != {7860, 5555}:
            raise Finding(f"listens on {sorted(open_ports())}")
        return f"ready after {seconds:.0f} s; besides 7860, which a Space passes on, Flower's 5555"

    step("space: HEALTHCHECK", come_up)
    step("space: a picture over HTTP", lambda: trial.detect(SPACE))
    step("space: the baked export", lambda: _was_baked(trial.log("space").read_text()))
    step("space: SIGTERM", lambda: _stops(running.stop(90)))


def _both_confined(gateway: Container, worker: Container) -> str:
    confined(gateway)
    return confined(worker)


def _is_completed(job: str) -> bool:
    return bool(get(f"{API}/result/{job}?wait=20")["status"] == "completed")


def _samples() -> str:
    samples = get(f"{API}/page-config")["samples"]
    answers = {status_of(API + sample["url"]) for sample in samples}
    if not samples or answers != {200}:
        raise Finding(f"{len(samples)} samples, answers {answers}")
    return f"{len(samples)} are there"


def _no_display(asked: list[str]) -> str:
    for seen in ("libopenvino", "libavcodec"):  # OpenVINO's own, and one that OpenCV brings
        if not any(name.startswith(seen) for name in asked):
            raise Finding(f"the linker's record of the worker does not even show {seen}")
    wrong = sorted({name for name in asked if name.startswith(("libGL", "libX11", "libEGL"))})
    if wrong:
        raise Finding(f"the worker looked for {wrong}")
    return f"{len(set(asked))}, and libGL, libEGL or libX11 is none of them"


def _was_baked(log: str) -> str:
    if "exporting" in log or "(openvino)" not in log:
        raise Finding("the worker exported again, or serves without OpenVINO; see its log")
    return "found and served, nothing exported at start"


def _stops(outcome: tuple[int, float]) -> str:
    status, seconds = outcome
    if status not in (0, 143):
        raise Finding(f"exit status {status}")
    return f"exit status {status} after {seconds:.1f} s"
