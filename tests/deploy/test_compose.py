"""docker-compose.yml, as Compose reads it: what starts, what is published, what is confined."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import Settings
from tests.support.compose import config
from tests.support.stack import ROOT

PROFILES = {
    "": {"secrets", "redis", "api", "worker", "flower"},
    "gpu": {"secrets", "redis", "api", "worker", "flower", "worker-gpu"},
    "monitoring": {"secrets", "redis", "api", "worker", "flower", "prometheus", "grafana"},
    "tools": {"secrets", "redis", "api", "worker", "flower", "yolo-queue"},
}


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """Services of all profiles together."""
    services: dict[str, Any] = {}
    for profile in PROFILES:
        services |= config(profile)["services"]
    return services


def seconds(duration: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", duration)
    return sum(
        float(number) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for number, unit in parts
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_is_valid_and_starts_what_it_says(profile: str) -> None:
    assert set(config(profile)["services"]) == PROFILES[profile]


def test_redis_cannot_be_reached_from_outside(everything: dict[str, Any]) -> None:
    redis = everything["redis"]
    assert "ports" not in redis
    assert set(redis["networks"]) == {"backend"}
    networks = config("monitoring")["networks"]
    assert networks["backend"]["internal"] is True
    assert networks["metrics"]["internal"] is True


def test_redis_keeps_what_it_accepted(everything: dict[str, Any]) -> None:
    redis = everything["redis"]
    options = " ".join(redis["command"])
    for option in ("--appendonly yes", "--maxmemory-policy noeviction", "--maxmemory 1gb"):
        assert option in options
    assert re.search(r":\d+\.\d+\.\d+", redis["image"]), "pinned by version"
    assert {"source": "redis-data", "target": "/data"}.items() <= redis["volumes"][1].items()
    limit = int(redis["deploy"]["resources"]["limits"]["memory"])
    assert limit >= 2 * 2**30, "room beside maxmemory for rewriting the file"


def test_replicas(everything: dict[str, Any]) -> None:
    assert everything["worker"]["deploy"]["replicas"] == 2
    assert config(WORKERS="5")["services"]["worker"]["deploy"]["replicas"] == 5
    gpu = config("gpu", WORKERS="0")["services"]
    assert gpu["worker"]["deploy"]["replicas"] == 0, "a GPU can have the queue to itself"
    assert gpu["worker-gpu"]["deploy"]["replicas"] == 1
    for name in ("worker", "worker-gpu"):
        assert "container_name" not in everything[name], "or --scale could start but one"
        assert "ports" not in everything[name], "or a second one would find the port taken"


def test_a_gpu_worker_gets_a_gpu(everything: dict[str, Any]) -> None:
    worker = everything["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert worker["build"]["args"]["TORCH_BACKEND"].startswith("cu")
    assert worker["environment"]["YOLO_DEVICE"] == "cuda"
    assert everything["worker"]["build"]["args"]["TORCH_BACKEND"] == "cpu"


def test_a_stopped_worker_may_finish_its_job(everything: dict[str, Any]) -> None:
    for name in ("worker", "worker-gpu"):
        grace = seconds(everything[name]["stop_grace_period"])
        assert grace > Settings().task_hard_limit_seconds + 10, name
    from api.__main__ import DRAIN_SECONDS

    assert seconds(everything["api"]["stop_grace_period"]) > DRAIN_SECONDS


def test_every_service_restarts_is_checked_and_is_confined(everything: dict[str, Any]) -> None:
    assert len(everything) == 9
    for name, service in everything.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert not service.get("privileged"), name
        if name in ("secrets", "yolo-queue"):  # run once
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "healthcheck" in service or _image_has_healthcheck(service), name


def _image_has_healthcheck(service: dict[str, Any]) -> bool:
    text = (ROOT / service["build"]["dockerfile"]).read_text()
    return "\nHEALTHCHECK " in text


def test_order_of_start(everything: dict[str, Any]) -> None:
    assert everything["redis"]["depends_on"]["secrets"]["condition"] == (
        "service_completed_successfully"
    )
    for name in ("api", "worker", "worker-gpu", "flower"):
        assert everything[name]["depends_on"]["redis"]["condition"] == "service_healthy", name
    assert everything["grafana"]["depends_on"]["prometheus"]["condition"] == "service_healthy"


def test_only_loopback_is_published_until_somebody_says_otherwise() -> None:
    services = config("monitoring")["services"]
    published = {
        name: [(port["host_ip"], port["published"]) for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }
    assert published == {
        "api": [("127.0.0.1", "8000")],
        "flower": [("127.0.0.1", "5555")],
        "grafana": [("127.0.0.1", "3000")],
    }
    services = config(PUBLISH_ADDRESS="0.0.0.0", PORT="9000")["services"]
    assert services["api"]["ports"][0]["host_ip"] == "0.0.0.0"
    assert services["api"]["ports"][0]["published"] == "9000"
    assert services["api"]["environment"]["PORT"] == "8000", "inside it stays"


def test_no_default_password(everything: dict[str, Any]) -> None:
    """Whatever is called a password or key is empty, or a file that `secrets` has written."""
    for name, service in everything.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|BASIC_AUTH|_KEY", variable):
                assert value == "" or value.startswith("/run/yolo-queue/"), (name, variable)
        arguments = json.dumps([service.get("command"), service.get("entrypoint")])
        assert "requirepass" not in arguments, "a password would show in the process list"
    mounts = {
        name: {
            volume["source"]
            for volume in service.get("volumes", ())
            if "secret" in volume["source"]
        }
        for name, service in everything.items()
        if name != "secrets"
    }
    assert {name for name, volumes in mounts.items() if "flower-secret" in volumes} == {"flower"}
    assert {name for name, volumes in mounts.items() if "grafana-secret" in volumes} == {"grafana"}
    assert mounts["prometheus"] == set()


def test_commands_are_the_images_own(everything: dict[str, Any]) -> None:
    """`entrypoint` in a compose file takes the image's CMD away, so it is repeated there."""
    for service, file in (("api", "Dockerfile.api"), ("worker", "Dockerfile.worker")):
        command = re.findall(r"^CMD (\[.*\])$", (ROOT / file).read_text(), re.MULTILINE)[-1]
        assert everything[service]["command"] == json.loads(command)


def test_what_is_mounted_from_the_checkout_is_there(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert volume["read_only"] is True, (name, volume)
                assert Path(volume["source"]).exists(), (name, volume["source"])


def test_prometheus_reaches_the_metrics(everything: dict[str, Any]) -> None:
    for name in ("api", "worker", "worker-gpu", "prometheus"):
        assert "metrics" in everything[name]["networks"], name
    for name in ("worker", "worker-gpu"):
        environment = everything[name]["environment"]
        assert environment["WORKER_METRICS_PORT"] == "9100"
        assert environment["WORKER_METRICS_HOST"] == "0.0.0.0"


def test_prometheus_and_grafana_find_each_other_and_their_files(everything: dict[str, Any]) -> None:
    folder = ROOT / "deploy/monitoring"
    targets = {volume["target"] for volume in everything["grafana"]["volumes"]}
    (provider,) = (folder / "grafana/provisioning/dashboards").glob("*.yml")
    for entry in yaml.safe_load(provider.read_text())["providers"]:
        assert entry["options"]["path"] in targets
    assert list((folder / "grafana/dashboards").glob("*.json"))
    (sources,) = (folder / "grafana/provisioning/datasources").glob("*.yml")
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scrapes = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    asked = {
        (name, lookup["port"])
        for scrape in scrapes
        for lookup in scrape["dns_sd_configs"]
        for name in lookup["names"]
    }
    assert asked == {("api", 8000), ("worker", 9100), ("worker-gpu", 9100)}


def test_the_settings_of_env_reach_the_containers(tmp_path: Path) -> None:
    services = config()["services"]
    for name in ("api", "worker", "flower"):
        source = (ROOT / "docker-compose.yml").read_text()
        assert "env_file" in source
        assert services[name].get("env_file") in (None, [], [{"path": ".env", "required": False}])
    env = tmp_path / "env"
    env.write_text("WORKERS=3\nYOLO_MODEL=/weights/x.pt\nWORKER_CONCURRENCY=4\n")
    worker = config(env_file=env)["services"]["worker"]
    assert worker["deploy"]["replicas"] == 3
    assert worker["environment"]["YOLO_MODEL"] == "/weights/x.pt"
    assert worker["environment"]["WORKER_CONCURRENCY"] == "4"
