"""Which pod may open a connection to which, by the NetworkPolicies together."""

from __future__ import annotations

import pytest

from tests.support.kubernetes import (
    Peer,
    Rendered,
    of_kind,
    pod_labels,
    reaches,
    workloads,
)

# -- Redis, Flower, the way in ----------------------------------------------------------------


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
    clients = {"api", "worker", "flower", "worker-plates"}
    assert found == {
        *((client, "redis", 6379) for client in clients),
        *((pod, "dns", 53) for pod in pods),
        *(("api", "internet", port) for port in (80, 443)),
        *((source, "api", 8000) for source in outside),
        *(("monitoring", worker, 9100) for worker in ("worker", "worker-plates")),
    }


def test_every_pod_reaches_an_external_redis(rendered: Rendered) -> None:
    objects = rendered["cpu-external-redis"]
    policies = list(of_kind(objects, "NetworkPolicy"))
    for workload in workloads(objects):
        pod = Peer(pod_labels(workload))
        assert all(reaches(policies, pod, PRIVATE, port) for port in (6379, 6380, 26379))
        assert not reaches(policies, pod, PRIVATE, 443)
    assert not any(one["metadata"]["name"] == "yolo-queue-redis" for one in objects)
