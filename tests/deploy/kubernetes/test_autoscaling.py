"""What scales the workers, and what it asks the gateway."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import redis

from shared.settings import Settings
from tests.deploy.kubernetes.conftest import Gateway
from tests.support.kubernetes import (
    Object,
    Rendered,
    component,
    environment,
    of_kind,
    pod_labels,
    pod_spec,
    selects,
    workloads,
)
from yolo_queue.server.embedded_redis import EmbeddedRedis


def test_only_what_is_not_scaled_has_a_fixed_number_of_replicas(objects: list[Object]) -> None:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }
    for workload in workloads(objects):
        assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in scaled)


def test_workers_go_to_zero_but_not_because_the_gateway_is_silent(
    objects: list[Object],
) -> None:
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
    rendered: Rendered,
    gateway: Gateway,
    redis_server: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trigger's own request with the Secret's key, to a gateway with the pod's environment."""
    objects = rendered["cpu"]
    (container,) = pod_spec(component(objects, "api"))["containers"]
    for name, value in environment(objects, container).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    (scaled,) = of_kind(objects, "ScaledObject")
    key = environment(objects, container)["KEDA_API_KEY"]
    async with gateway(Settings()) as http:
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
