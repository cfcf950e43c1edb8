"""deploy/kubernetes as real kustomize renders it: every object is valid, and what the files promise
in comments holds. No cluster is asked; deploy/kubernetes/README.md says what only one can show."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jsonschema
import kubernetes_validate
import pytest
import redis
import yaml

from api.__main__ import DRAIN_SECONDS
from api.app import create_app
from api.waiting import MAX_WAIT_SECONDS
from shared.job.worker_store import WorkerStore
from shared.settings import Settings
from tests.support.kubernetes import (
    MANIFESTS,
    OVERLAYS,
    ROOT,
    WORKLOADS,
    Object,
    Peer,
    component,
    environment,
    kustomize_command,
    named,
    of_kind,
    pod_labels,
    pod_spec,
    quantity,
    reaches,
    render,
    selects,
)
from tests.support.kubernetes_crds import SCHEMAS
from yolo_queue.server.embedded_redis import EmbeddedRedis

# The oldest has the preStop pause (`sleep`) without a feature gate.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

# In no Settings field: what is put together into API_KEYS, what the GPU's runtime, the in-cluster
# Redis and its client read.
FOREIGN = {
    "CLIENT_API_KEYS",
    "KEDA_API_KEY",
    "NVIDIA_DRIVER_CAPABILITIES",
    "REDISCLI_AUTH",
    "REDIS_PASSWORD",
}
# What README.md asks the user to make.
FROM_OUTSIDE = {("PersistentVolumeClaim", "yolo-queue-weights")}

Rendered = dict[str, list[Object]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which every overlay has its secrets, and one more has every optional component."""
    copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("secret.env"))
    for overlay in OVERLAYS:
        url = ["rediss://user:word@redis.example.com:6380/0"] if "external" in overlay else []
        _make_secrets(copy, overlay, *url)
    shutil.copytree(copy / "overlays" / "cpu", copy / "overlays" / "everything")
    path = copy / "overlays" / "everything" / "kustomization.yaml"
    text = path.read_text()
    path.write_text(text.replace("  # - ../../components/", "  - ../../components/"))
    assert path.read_text() != text
    return copy


def _make_secrets(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    overlay, *rest = arguments
    return subprocess.run(
        [str(copy / "make-secret-env"), str(copy / "overlays" / overlay), *rest],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def rendered(folder: Path) -> Rendered:
    return {name: render(folder / "overlays" / name) for name in (*OVERLAYS, "everything")}


@pytest.fixture(params=(*OVERLAYS, "everything"))
def objects(request: pytest.FixtureRequest, rendered: Rendered) -> list[Object]:
    return rendered[request.param]


def containers(workload: Object) -> list[Object]:
    spec = pod_spec(workload)
    return [*spec.get("initContainers", []), *spec["containers"]]


def workloads(objects: list[Object]) -> list[Object]:
    return list(of_kind(objects, *WORKLOADS))


# -- the files --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects: list[Object], version: str) -> None:
    for one in objects:
        if schema := SCHEMAS.get(one["kind"]):
            jsonschema.validate(one, schema)
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_overlay_is_looked_at() -> None:
    folders = {path.parent.name for path in (MANIFESTS / "overlays").glob("*/kustomization.yaml")}
    assert folders == set(OVERLAYS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_without_secrets_nothing_is_rendered(tmp_path: Path, overlay: str) -> None:
    copy = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("secret.env"))
    out = subprocess.run(
        [*kustomize_command(), str(copy / "overlays" / overlay)], capture_output=True, text=True
    )
    assert out.returncode != 0
    assert out.stdout == ""
    assert "secret.env" in out.stderr
    assert "no such file" in out.stderr


def test_secrets_are_made_once_and_for_their_owner_alone(folder: Path) -> None:
    path = folder / "overlays" / "cpu" / "secret.env"
    before = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    again = _make_secrets(folder, "cpu")
    assert again.returncode == 1
    assert "already" in again.stderr
    assert path.read_text() == before
    values = re.findall(r"^\w+=(.+)$", before, re.MULTILINE)
    assert len(values) == len(set(values)) == 5  # all but WEBHOOK_SECRET, which starts empty
    assert (folder / "overlays" / "gpu" / "secret.env").read_text() != before


def test_git_has_no_secret() -> None:
    assert "secret.env" in (MANIFESTS / ".gitignore").read_text().split("\n")
    for path in MANIFESTS.rglob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert not (isinstance(one, dict) and one.get("kind") == "Secret"), path


def test_images_are_pinned(objects: list[Object]) -> None:
    release = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release
    for workload in workloads(objects):
        for container in containers(workload):
            name, _, tag = container["image"].partition(":")
            assert tag
            assert tag != "latest"
            if name.startswith("yolo-queue"):
                assert tag.removesuffix("-gpu") == release[1]


# -- names and labels -------------------------------------------------------------------------


def test_all_is_in_one_namespace(objects: list[Object]) -> None:
    assert {one["metadata"]["namespace"] for one in objects} == {"yolo-queue"}


def test_references_lead_somewhere(objects: list[Object]) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in objects} | FROM_OUTSIDE
    for workload in workloads(objects):
        spec = pod_spec(workload)
        claims = {
            one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])
        }
        volumes = {volume["name"] for volume in spec["volumes"]} | claims
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", name) in there
        for container in containers(workload):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            environment(objects, container)  # follows every ConfigMap and Secret by name and key
    for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        assert ("Deployment", one["spec"]["scaleTargetRef"]["name"]) in there
    for one in of_kind(objects, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in there
    for one in of_kind(objects, "TriggerAuthentication"):
        for reference in one["spec"]["secretTargetRef"]:
            assert reference["key"] in named(objects, "Secret", reference["name"])["data"]
    for one in of_kind(objects, "Ingress"):
        backend = one["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        service = named(objects, "Service", backend["name"])
        assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    for one in of_kind(objects, "StatefulSet"):
        assert ("Service", one["spec"]["serviceName"]) in there


def test_selectors_select_one_workload(objects: list[Object]) -> None:
    every = workloads(objects)
    for workload in every:
        assert selects(workload["spec"]["selector"], pod_labels(workload))
        for spread in pod_spec(workload).get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], pod_labels(workload))
    for one in of_kind(objects, "Service", "PodDisruptionBudget", "PodMonitor"):
        selector = one["spec"]["selector"]
        if one["kind"] == "Service":
            selector = {"matchLabels": selector}
        found = [workload for workload in every if selects(selector, pod_labels(workload))]
        assert [one["metadata"]["name"]] == [workload["metadata"]["name"] for workload in found]


def test_disruption_budgets_cover_all_but_flower(objects: list[Object]) -> None:
    budgets = list(of_kind(objects, "PodDisruptionBudget"))
    for workload in workloads(objects):
        covered = [one for one in budgets if selects(one["spec"]["selector"], pod_labels(workload))]
        # Flower is one pod that nobody waits for.
        is_flower = pod_labels(workload)["app.kubernetes.io/component"] == "flower"
        assert len(covered) == (0 if is_flower else 1)


def test_ports_match(objects: list[Object]) -> None:
    for workload in workloads(objects):
        (container,) = pod_spec(workload)["containers"]
        env = environment(objects, container)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        match pod_labels(workload)["app.kubernetes.io/component"]:
            case "api":
                assert ports == {"http": int(env["PORT"])}
                assert env["HOST"] == "0.0.0.0"
            case "worker":
                assert ports == {"metrics": int(env["WORKER_METRICS_PORT"])}
                assert env["WORKER_METRICS_HOST"] == "0.0.0.0"
            case "flower":
                assert f"--port={ports['http']}" in container["command"]
            case "redis":
                assert ports == {"redis": 6379}
        for service in of_kind(objects, "Service"):
            if selects({"matchLabels": service["spec"]["selector"]}, pod_labels(workload)):
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
        for monitor in of_kind(objects, "PodMonitor"):
            if selects(monitor["spec"]["selector"], pod_labels(workload)):
                assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= set(ports)


def test_two_models_do_not_meet(rendered: Rendered) -> None:
    """The second one's gateway must not answer for the first, nor its workers be scaled by it."""
    both = [*rendered["everything"], *rendered["second-model"]]
    keys = [(one["kind"], one["metadata"]["name"]) for one in both]
    assert len(keys) == len(set(keys))
    every = workloads(both)
    for one, other in combinations(every, 2):
        assert not selects(one["spec"]["selector"], pod_labels(other))
        assert not selects(other["spec"]["selector"], pod_labels(one))
    for one in of_kind(both, "Service", "PodDisruptionBudget"):
        selector = one["spec"]["selector"]
        if one["kind"] == "Service":
            selector = {"matchLabels": selector}
        assert len([w for w in every if selects(selector, pod_labels(w))]) == 1
    queues = {
        environment(both, pod_spec(one)["containers"][0])["YOLO_QUEUE"]
        for one in every
        if pod_labels(one)["app.kubernetes.io/component"] in ("api", "worker")
    }
    assert queues == {"yolo", "plates"}


# -- the pods ---------------------------------------------------------------------------------


def test_pods_are_locked_down(objects: list[Object]) -> None:
    """What Kubernetes calls the restricted profile, and a read-only root on top."""
    for workload in workloads(objects):
        spec = pod_spec(workload)
        assert spec["automountServiceAccountToken"] is False
        # Else a Service named flower would set FLOWER_PORT=tcp://...
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        allowed = {"emptyDir", "configMap", "persistentVolumeClaim"}
        assert all(volume.keys() - {"name"} <= allowed for volume in spec["volumes"])
        assert all(v["emptyDir"].get("sizeLimit") for v in spec["volumes"] if "emptyDir" in v)
        for container in containers(workload):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            resources = container["resources"]
            for name in ("cpu", "memory"):
                assert quantity(resources["requests"][name]) <= quantity(resources["limits"][name])


def test_the_environment_makes_settings(
    objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name is known, every value is accepted, and each pod has what it must have."""
    known = {name.upper() for name in Settings.model_fields}
    for workload in workloads(objects):
        for container in pod_spec(workload)["containers"]:
            env = environment(objects, container)
            assert env.keys() <= known | FOREIGN, env.keys() - known - FOREIGN
            # The very parser that the pod will use, on the very environment it will have.
            with monkeypatch.context() as patch:
                for name in known:
                    patch.delenv(name, raising=False)
                for name, value in env.items():
                    patch.setenv(name, value)
                settings = Settings()
            match container["name"]:
                case "redis":
                    continue
                case "api":
                    assert len(settings.api_keys) == 2
                    assert all(len(key.get_secret_value()) == 48 for key in settings.api_keys)
                    assert "FLOWER_BASIC_AUTH" not in env
                case "worker":
                    assert not env.keys() & {"API_KEYS", "KEDA_API_KEY", "FLOWER_BASIC_AUTH"}
                case "flower":
                    assert ":" in settings.flower_basic_auth.get_secret_value()
                    assert not env.keys() & {"API_KEYS", "KEDA_API_KEY"}
            assert settings.redis_url != Settings.model_fields["redis_url"].default


def test_no_key_can_be_left_out(objects: list[Object]) -> None:
    """Kubernetes leaves a $(NAME) of a key that is missing as it stands: a key that all can read.
    What is put together must not be optional, and must come before its use."""
    for workload in workloads(objects):
        for container in containers(workload):
            before: set[str] = set()
            for entry in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= before
                reference = entry.get("valueFrom", {}).get("secretKeyRef", {})
                assert not reference.get("optional") or entry["name"] == "IMAGE_REDIS_URL"
                if not reference.get("optional"):
                    before.add(entry["name"])


def test_the_gateway_is_asked_for_health_alone(objects: list[Object]) -> None:
    (container,) = pod_spec(component(objects, "api"))["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@asynccontextmanager
async def _gateway(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
    finally:
        await app.state.gateway.close()


@pytest.mark.anyio
async def test_why_the_gateway_is_not_asked_for_ready(settings: Settings) -> None:
    async with _gateway(settings) as client:
        health, ready = await client.get("/health"), await client.get("/ready")
    assert (health.status_code, ready.status_code) == (200, 503)


def test_pods_have_time_to_end(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    worker = component(objects, "worker")
    env = environment(objects, pod_spec(worker)["containers"][0])
    for name in ("TASK_TIME_LIMIT_SECONDS", "TASK_KILL_GRACE_SECONDS"):
        monkeypatch.setenv(name, env[name])
    hard_limit = Settings().task_hard_limit_seconds
    assert pod_spec(worker)["terminationGracePeriodSeconds"] >= hard_limit + 20

    api = pod_spec(component(objects, "api"))
    pause = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert api["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS


def test_processes_follow_the_cpu_limit(objects: list[Object]) -> None:
    (container,) = pod_spec(component(objects, "worker"))["containers"]
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert re.fullmatch(r"\d+", limits["cpu"]), "a whole number: one process each"
    assert requests["cpu"] == limits["cpu"]
    processes = int(environment(objects, container)["WORKER_CONCURRENCY"])
    assert processes == int(limits["cpu"])
    assert quantity(limits["memory"]) >= (1 + processes / 2) * 2**30


def test_a_worker_may_write_where_it_must(objects: list[Object]) -> None:
    spec = pod_spec(component(objects, "worker"))
    (container,) = spec["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"  # noqa: S108
    assert "emptyDir" in volumes[mounts["/tmp"]]  # noqa: S108
    cache = environment(objects, container)["MODEL_CACHE_DIR"]
    (copying,) = spec["initContainers"]
    assert copying["image"] == container["image"]
    (target,) = (m for m in copying["volumeMounts"] if m["name"] == mounts[cache])
    assert copying["command"] == ["cp", "-R", f"{cache}/.", f"{target['mountPath']}/"]


# -- a worker's probes, run as the kubelet would ----------------------------------------------


def _probe(rendered: Rendered, kind: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    (container,) = pod_spec(component(rendered["cpu"], "worker"))["containers"]
    probe = container[kind]
    assert probe["timeoutSeconds"] >= 10
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        probe["exec"]["command"],
        cwd=ROOT,
        env={"PATH": path, "REDIS_URL": redis_url, "YOLO_QUEUE": "yolo"},
        capture_output=True,
        text=True,
        timeout=probe["timeoutSeconds"],
    )


def test_without_redis_a_worker_is_not_ready_but_lives(rendered: Rendered) -> None:
    nobody = "redis://127.0.0.1:1/0"
    assert _probe(rendered, "readinessProbe", nobody).returncode == 1
    assert _probe(rendered, "livenessProbe", nobody).returncode == 0


def test_a_redis_that_hangs_restarts_no_worker(rendered: Rendered) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert _probe(rendered, "livenessProbe", url).returncode == 0


def test_a_worker_that_does_not_consume_is_restarted(
    rendered: Rendered, settings: Settings
) -> None:
    report = {"processes": 2, "loaded": 2, "ready": 2, "running": 0, "consuming": True}
    store = WorkerStore(settings)
    name = f"celery@{socket.gethostname()}/{os.getpid()}"

    def beat(**changes: object) -> None:
        store.redis.hset("yolo:workers", name, json.dumps(report | changes))
        store.redis.zadd("yolo:workers-seen", {name: time.time() * 1000})

    try:
        assert _probe(rendered, "livenessProbe", settings.redis_url).returncode == 1
        beat()
        assert _probe(rendered, "livenessProbe", settings.redis_url).returncode == 0
        assert _probe(rendered, "readinessProbe", settings.redis_url).returncode == 0
        beat(consuming=False, ready=0)
        gone = _probe(rendered, "livenessProbe", settings.redis_url)
        assert gone.returncode == 1
        assert "does not take jobs" in gone.stdout
    finally:
        store.redis.close()


def test_probes_are_patient(objects: list[Object]) -> None:
    (worker,) = pod_spec(component(objects, "worker"))["containers"]
    start, live = worker["startupProbe"], worker["livenessProbe"]
    # The longest export (worker/model/runtimes.py) and the loading of a model.
    assert start["periodSeconds"] * start["failureThreshold"] >= 600 + 120
    assert live["periodSeconds"] * live["failureThreshold"] >= 300
    for workload in workloads(objects):
        for container in pod_spec(workload)["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[kind]["timeoutSeconds"] >= 2


# -- scaling ----------------------------------------------------------------------------------


def test_whoever_is_scaled_has_no_fixed_number(objects: list[Object]) -> None:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }
    for workload in workloads(objects):
        assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in scaled)


def test_workers_go_to_zero_and_stay_as_they_are_while_nobody_knows(objects: list[Object]) -> None:
    (scaled,) = of_kind(objects, "ScaledObject")
    spec = scaled["spec"]
    assert spec["minReplicaCount"] == 0 < spec["maxReplicaCount"]
    assert spec["fallback"]["behavior"] == "currentReplicas"
    assert spec["fallback"]["replicas"] > 0  # else KEDA goes to zero when it has no answer
    # What stays must be worked out from an average: 1 target a replica.
    assert all(trigger["metricType"] == "AverageValue" for trigger in spec["triggers"])
    assert [t["metadata"]["valueLocation"] for t in spec["triggers"]] == [
        "backlog",
        "oldest_age_seconds",
    ]


def test_the_scaler_asks_the_gateway(objects: list[Object]) -> None:
    api = component(objects, "api")
    (service,) = (
        one
        for one in of_kind(objects, "Service")
        if selects({"matchLabels": one["spec"]["selector"]}, pod_labels(api))
    )
    (scaled,) = of_kind(objects, "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        url = urlsplit(trigger["metadata"]["url"])
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        assert url.hostname == f"{name}.{namespace}.svc"
        assert url.port == service["spec"]["ports"][0]["port"]
        assert url.path == "/queue"


@pytest.mark.anyio
async def test_the_gateway_answers_the_scaler(
    rendered: Rendered, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger's own request, with the Secret's key, at a gateway with the pod's environment."""
    objects = rendered["cpu"]
    (container,) = pod_spec(component(objects, "api"))["containers"]
    for name, value in environment(objects, container).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    (scaled,) = of_kind(objects, "ScaledObject")
    key = environment(objects, container)["KEDA_API_KEY"]
    async with _gateway(Settings()) as http:
        refused = await http.get("/queue")
        answer = await http.get("/queue", headers={"X-API-Key": key})
    assert refused.status_code == 401
    assert answer.status_code == 200
    for trigger in scaled["spec"]["triggers"]:
        asked = trigger["metadata"]
        assert asked["authMode"] == "apiKey"
        assert (asked["method"], asked["keyParamName"]) == ("header", "X-API-Key")
        # An empty queue is 0, so that KEDA takes the last worker away.
        assert answer.json()[asked["valueLocation"]] == 0


# -- the network ------------------------------------------------------------------------------

INTERNET = Peer(address="93.184.215.14")
METADATA_SERVICE = Peer(address="169.254.169.254")
PRIVATE = Peer(address="10.1.2.3")
MAPPED = Peer(address="64:ff9b::a00:1")
MONITORING = Peer(namespace="monitoring")
KEDA = Peer(namespace="keda")


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "everything"])
def test_who_reaches_whom(rendered: Rendered, overlay: str) -> None:
    objects = [*rendered[overlay], *rendered["second-model"]]
    policies = list(of_kind(objects, "NetworkPolicy"))
    pods = {
        workload["metadata"]["name"].removeprefix("yolo-queue-"): Peer(pod_labels(workload))
        for workload in workloads(objects)
    }
    ports = (53, 80, 443, 5555, 6379, 8000, 9100)
    outside = {
        "internet": INTERNET,
        "metadata": METADATA_SERVICE,
        "private": PRIVATE,
        "mapped": MAPPED,
        "monitoring": MONITORING,
        "keda": KEDA,
        "dns": Peer(namespace="kube-system"),
    }
    found = {
        (source, target, port)
        for source, one in (pods | outside).items()
        for target, other in (pods | outside).items()
        for port in ports
        if source != target
        and not (source in outside and target in outside)
        and reaches(policies, one, other, port)
    }
    clients = {"api", "worker", "flower", "api-plates", "worker-plates"}
    gateways = {"api", "api-plates"}
    assert found == {
        *((client, "redis", 6379) for client in clients),
        *((pod, "dns", 53) for pod in pods),
        *((gateway, "internet", port) for gateway in gateways for port in (80, 443)),
        *((source, gateway, 8000) for source in outside for gateway in gateways),
        *(("monitoring", worker, 9100) for worker in ("worker", "worker-plates")),
    }


def test_an_external_redis_is_reached(rendered: Rendered) -> None:
    objects = rendered["cpu-external-redis"]
    policies = list(of_kind(objects, "NetworkPolicy"))
    for workload in workloads(objects):
        pod = Peer(pod_labels(workload))
        assert all(reaches(policies, pod, PRIVATE, port) for port in (6379, 6380, 26379))
        assert not reaches(policies, pod, PRIVATE, 443)
    assert not any(one["metadata"]["name"] == "yolo-queue-redis" for one in objects)


# -- Redis, Flower, the way in ----------------------------------------------------------------


def test_redis_keeps_what_was_accepted(rendered: Rendered) -> None:
    for overlay in ("cpu", "gpu"):
        objects = rendered[overlay]
        workload = component(objects, "redis")
        (container,) = pod_spec(workload)["containers"]
        (text,) = (
            one["data"]["redis.conf"]
            for one in of_kind(objects, "ConfigMap")
            if "redis.conf" in one["data"]
        )
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        conf = {name: value for name, _, value in (line.partition(" ") for line in lines)}
        assert conf["appendonly"] == "yes"
        assert conf["appendfsync"] == "always"
        assert conf["maxmemory-policy"] == "noeviction"
        assert conf["maxmemory"] == "1gb"
        assert quantity(container["resources"]["limits"]["memory"]) >= 2 * 2**30
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        assert mounts[conf["dir"]] == claim["metadata"]["name"]
        assert Path(conf["include"]).parent.as_posix() in mounts
        assert conf["include"] in container["command"][-1]
        env = environment(objects, container)
        (worker,) = pod_spec(component(objects, "worker"))["containers"]
        url = urlsplit(environment(objects, worker)["REDIS_URL"])
        assert url.password == env["REDIS_PASSWORD"] == env["REDISCLI_AUTH"]
        assert url.hostname == workload["spec"]["serviceName"]
        assert workload["spec"]["replicas"] == 1


def test_flower_keeps_its_history(rendered: Rendered) -> None:
    flower = component(rendered["gpu"], "flower")
    assert flower["spec"]["strategy"] == {"type": "Recreate"}
    (container,) = pod_spec(flower)["containers"]
    (database,) = (one for one in container["command"] if one.startswith("--db="))
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert Path(database.partition("=")[2]).parent.as_posix() in mounts
    assert not container["image"].endswith("-gpu"), "6 GB for a web page"


def test_the_ingress_lets_the_gateway_decide(rendered: Rendered) -> None:
    (ingress,) = of_kind(rendered["everything"], "Ingress")
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    options = {
        name.removeprefix(prefix): value
        for name, value in ingress["metadata"]["annotations"].items()
    }
    size = int(options["body-size"].removesuffix("m")) * 2**20
    assert size > Settings().max_gateway_upload_bytes
    assert options["buffering"] == options["request-buffering"] == "off"
    assert int(options["read-timeout"]) > MAX_WAIT_SECONDS
