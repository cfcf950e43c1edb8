"""Renders deploy/kubernetes with the real kustomize, and answers for a cluster that is not there.

Such as: what a selector selects, which pod reaches which, what environment a container gets.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.machine import PATH, missing
from tests.support.stack import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "cpu-external-redis", "gpu")
SECOND_MODEL = "second-model"
"""Workers alone, beside one of the others."""
WORKLOADS = ("Deployment", "StatefulSet")

Object = dict[str, Any]
Rendered = dict[str, list[Object]]
"""Objects by overlay."""


def kustomize_command() -> list[str]:
    """`kustomize build` or `kubectl kustomize`, beside this Python or on the PATH."""
    for program, verb in (("kustomize", "build"), ("kubectl", "kustomize")):
        if found := shutil.which(program, path=PATH):
            return [found, verb]
    missing("neither kustomize nor kubectl is installed")


def render(folder: Path) -> list[Object]:
    out = subprocess.run([*kustomize_command(), str(folder)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert not out.stderr, f"kustomize warns: {out.stderr}"
    return [one for one in yaml.safe_load_all(out.stdout) if one]


def make_secrets(
    manifests: Path, overlay: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the script that writes `secret.env` into an overlay."""
    return subprocess.run(
        [str(manifests / "make-secret-env"), str(manifests / "overlays" / overlay), *arguments],
        capture_output=True,
        text=True,
    )


def of_kind(objects: Iterable[Object], *kinds: str) -> Iterator[Object]:
    return (one for one in objects if one["kind"] in kinds)


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def component(objects: Iterable[Object], name: str) -> Object:
    """The workload whose pods have this component label."""
    (found,) = (
        one
        for one in of_kind(objects, *WORKLOADS)
        if pod_labels(one)["app.kubernetes.io/component"] == name
    )
    return found


def workloads(objects: Iterable[Object]) -> list[Object]:
    return list(of_kind(objects, *WORKLOADS))


def containers(workload: Object) -> list[Object]:
    """Those of a pod, with its init containers."""
    spec = pod_spec(workload)
    return [*spec.get("initContainers", []), *spec["containers"]]


def pod_spec(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def pod_labels(workload: Object) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector matches. An empty one matches everything."""
    unknown = selector.keys() - {"matchLabels", "matchExpressions"}
    assert not unknown, unknown
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In", rule
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod of this namespace, or (with no labels) something in another
    namespace or at an address."""

    labels: dict[str, str] | None = None
    namespace: str = ""
    address: str = ""


def reaches(policies: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether NetworkPolicies let `source` open a TCP connection to `target`."""
    return _allowed(policies, "Egress", source, target, port) and _allowed(
        policies, "Ingress", target, source, port
    )


def _allowed(policies: list[Object], direction: str, pod: Peer, other: Peer, port: int) -> bool:
    if pod.labels is None:
        return True  # not our pod, so our policies do not bind it
    binding = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not binding:
        return True
    rules, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _port_matches(rule, port) and _peer_matches(rule.get(side), other)
        for spec in binding
        for rule in spec.get(rules, [])
    )


def _port_matches(rule: Object, port: int) -> bool:
    return "ports" not in rule or any(
        entry["protocol"] == "TCP" and entry["port"] == port for entry in rule["ports"]
    )


def _peer_matches(peers: list[Object] | None, other: Peer) -> bool:
    from ipaddress import ip_address, ip_network

    if not peers:
        return True
    for peer in peers:
        if block := peer.get("ipBlock"):
            if not other.address:
                continue
            address = ip_address(other.address)
            # `in` is False, not an error, where the versions differ.
            inside = address in ip_network(block["cidr"])
            if inside and not any(address in ip_network(one) for one in block.get("except", ())):
                return True
        elif chosen := peer.get("namespaceSelector"):
            assert "podSelector" not in peer
            if other.namespace and selects(
                chosen, {"kubernetes.io/metadata.name": other.namespace}
            ):
                return True
        elif other.labels is not None and selects(peer["podSelector"], other.labels):
            return True
    return False


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """What a container's environment will be, put together as the kubelet does it."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        if "value" in entry:
            # A name that is not defined above stays as it stands, as in Kubernetes.
            value = re.sub(
                r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), entry["value"]
            )
        elif reference := entry["valueFrom"].get("secretKeyRef"):
            data = named(objects, "Secret", reference["name"])["data"]
            if reference["key"] not in data and reference.get("optional"):
                continue
            value = base64.b64decode(data[reference["key"]]).decode()
        else:
            field = entry["valueFrom"]["resourceFieldRef"]
            assert (field["resource"], field["divisor"]) == ("limits.cpu", "1")
            assert field["containerName"] == container["name"]
            value = container["resources"]["limits"]["cpu"]
        found[entry["name"]] = value
    return found


QUANTITY = {"": 1.0, "m": 0.001, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number."""
    number, suffix = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * QUANTITY[suffix]
