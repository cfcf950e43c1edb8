"""What scales the workers, and what it asks the gateway."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from shared.settings import Settings
from tests.deploy.kubernetes.conftest import Gateway
from tests.support.kubernetes import (
    SECOND_MODEL,
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
        "models.#(default==true).backlog",
        "models.#(default==true).oldest_age_seconds",
    ]


def test_a_second_models_workers_follow_its_own_jobs(rendered: Rendered) -> None:
    """And one is left, for a model that nobody serves is forgotten after a while."""
    (scaled,) = of_kind(rendered[SECOND_MODEL], "ScaledObject")
    (first,) = of_kind(rendered["cpu"], "ScaledObject")
    assert scaled["spec"]["minReplicaCount"] == 1
    assert scaled["spec"]["scaleTargetRef"]["name"] == "yolo-queue-worker-plates"
    for trigger, other in zip(scaled["spec"]["triggers"], first["spec"]["triggers"], strict=True):
        asked, there = trigger["metadata"], other["metadata"]
        assert asked["url"] == there["url"], "the gateway of the other overlay"
        assert asked["valueLocation"] == there["valueLocation"].replace(
            "default==true", 'name=="plates"'
        )


def value_at(answer: dict[str, Any], location: str) -> float:
    """What KEDA's GJSON finds at `models.#(KEY==VALUE).FIELD`."""
    found = re.fullmatch(r"models\.#\((\w+)==(.+)\)\.(\w+)", location)
    assert found
    key, value, field = found.groups()
    (number,) = (one[field] for one in answer["models"] if one[key] == json.loads(value))
    return float(number)


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
        assert value_at(answer.json(), asked["valueLocation"]) == 0
