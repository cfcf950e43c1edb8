"""Names, labels, selectors and ports of the objects fit each other."""

from __future__ import annotations

from itertools import combinations

from shared.settings import Settings
from tests.support.kubernetes import (
    Object,
    Rendered,
    containers,
    environment,
    named,
    of_kind,
    pod_labels,
    pod_spec,
    selects,
    workloads,
)

# What README.md asks the user to make.
FROM_OUTSIDE = {("PersistentVolumeClaim", "yolo-queue-weights")}


def test_everything_is_in_one_namespace(objects: list[Object]) -> None:
    assert {one["metadata"]["namespace"] for one in objects} == {"yolo-queue"}


def test_every_reference_has_a_target(objects: list[Object]) -> None:
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


def test_two_models_share_a_gateway_and_nothing_else(rendered: Rendered) -> None:
    """What is one model's must not select the other's pods, nor scale its workers."""
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
    environments = {
        one["metadata"]["name"]: environment(both, pod_spec(one)["containers"][0])
        for one in every
        if pod_labels(one)["app.kubernetes.io/component"] in ("api", "worker")
    }
    assert environments.keys() == {
        "yolo-queue-api",
        "yolo-queue-worker",
        "yolo-queue-worker-plates",
    }
    assert {one["YOLO_QUEUE"] for one in environments.values()} == {"yolo"}
    first, second = environments["yolo-queue-worker"], environments["yolo-queue-worker-plates"]
    (name,) = Settings(yolo_model=first["YOLO_MODEL"]).models
    assert second["DEFAULT_MODEL"] == name, "also for inline tasks"
    assert [*Settings(yolo_models=second["YOLO_MODELS"]).models] == ["plates"]
