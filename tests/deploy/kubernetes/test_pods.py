"""Pods are locked down, have settings that the service accepts, and have time to end."""

from __future__ import annotations

import re

import pytest

from api.__main__ import DRAIN_SECONDS
from shared.settings import Settings
from tests.support.kubernetes import (
    Object,
    component,
    containers,
    environment,
    pod_spec,
    quantity,
    workloads,
)

# In no Settings field: what is put together into API_KEYS, what the GPU's runtime, the in-cluster
# Redis and its client read.
FOREIGN = {
    "CLIENT_API_KEYS",
    "KEDA_API_KEY",
    "NVIDIA_DRIVER_CAPABILITIES",
    "REDISCLI_AUTH",
    "REDIS_PASSWORD",
}


def test_pods_are_locked_down(objects: list[Object]) -> None:
    """Kubernetes' restricted profile, and a read-only root."""
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


def test_settings_accept_the_environment(
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
    """Kubernetes leaves the $(NAME) of a missing key as it stands, and everybody can read that key.
    So what a value is made of must not be optional, and must come before its use."""
    for workload in workloads(objects):
        for container in containers(workload):
            before: set[str] = set()
            for entry in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= before
                reference = entry.get("valueFrom", {}).get("secretKeyRef", {})
                assert not reference.get("optional")
                before.add(entry["name"])


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


def test_a_worker_may_write_where_it_has_to(objects: list[Object]) -> None:
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
