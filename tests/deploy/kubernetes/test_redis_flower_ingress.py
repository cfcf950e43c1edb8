"""What stands around gateway and workers: Redis, Flower and the Ingress."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from api.long_polling import MAX_WAIT_SECONDS
from shared.settings import Settings
from tests.support.kubernetes import (
    Rendered,
    component,
    environment,
    of_kind,
    pod_spec,
    quantity,
)


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
    assert "/var/lib/flower" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert not container["image"].endswith("-gpu"), "6 GB for a web page"


def test_the_ingress_leaves_limits_to_the_gateway(rendered: Rendered) -> None:
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
