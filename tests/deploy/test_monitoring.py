"""deploy/monitoring asks for the metrics that gateway and worker really serve."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric

from api.background import BackgroundTasks
from api.http_metrics import RequestMetrics
from api.notifications import Notifier
from api.routes.metrics import ModelsCollector, QueueCollector, RedisCollector
from api.upload_budget import UploadBudget
from shared.job.gateway_store import GatewayStore
from shared.job.queue_state import ModelState, QueueState, RedisMemory
from shared.settings import Settings
from tests.support.stack import ROOT
from worker.model.runtimes import ServedModel
from worker.process.metrics import Snapshot, WorkerCollector
from worker.process.shared_memory import SharedMemory

FOLDER = ROOT / "deploy" / "monitoring"
GRAFANA = FOLDER / "grafana"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


PROMETHEUS = load(FOLDER / "prometheus.yml")
ALERTS = [
    rule for group in load(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]
]  # fmt: skip
DASHBOARDS = {
    path: json.loads(path.read_text()) for path in (GRAFANA / "dashboards").glob("*.json")
}
DATASOURCES = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions() -> list[tuple[str, str]]:
    """Where each PromQL expression stands, and the expression as Prometheus would get it."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in ALERTS]
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            found += [(f"panel {panel['title']}", t["expr"]) for t in panel.get("targets", [])]
        found += [
            (f"annotation {one['name']}", one["expr"])
            for one in dashboard["annotations"]["list"]
            if "expr" in one
        ]
    return [(where, text.replace("$__rate_interval", "1m")) for where, text in found]


EXPRESSIONS = expressions()


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Every series that the two endpoints can serve, with its labels, asked of the collectors."""
    settings = Settings()
    memory = RedisMemory(1, 2)
    background = BackgroundTasks()
    background.up["upkeep"] = True
    requests = RequestMetrics(UploadBudget(1, 1), Notifier(GatewayStore(settings)), background)
    requests.requests.labels("GET", "/", "200").inc()
    requests.problems.labels("internal").inc()
    requests.seconds.labels("GET", "/").observe(1)
    model = ServedModel("demo", Path(), "torch", Path(), "9f86")
    snapshot = Snapshot(SharedMemory().counters(), {}, 0.0, (model,))
    state = QueueState(0, 0, None, {}, {}, 0, {"demo": ModelState.nobody("demo")})
    registries = [requests.registry]
    for collector in (
        QueueCollector(state, settings),
        ModelsCollector(state, settings),
        RedisCollector(memory, settings),
        WorkerCollector(lambda: snapshot),
    ):
        registries.append(CollectorRegistry())
        registries[-1].register(collector)
    families: list[Metric] = [family for one in registries for family in one.collect()]
    names: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    for name in ("expr", "lhs", "rhs", "args", "param", "vector_selector", "vs"):
        child = getattr(node, name, None)
        for one in child if isinstance(child, list) else [child]:
            if one is not None and not isinstance(one, str):
                yield from selectors(one)


@pytest.mark.parametrize(("where", "text"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_expression_parses_and_asks_for_what_is_there(
    where: str, text: str, served: dict[str, set[str]]
) -> None:
    found = list(selectors(promql_parser.parse(text)))
    mentioned = set(re.findall(r"\byolo_queue_\w+", text))
    assert {one.name for one in found} >= mentioned, "every name was found in the tree"
    for one in found:
        if one.name in ("up", "ALERTS"):  # Prometheus' own
            continue
        assert one.name in served, f"{where} asks for {one.name}"
        labels = {matcher.name for matcher in one.matchers.matchers}
        assert labels <= served[one.name] | {"job", "instance"}, where
    grouped = {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", text)
        for label in group.split(",")
    }
    known = set().union(*(served.get(one.name or "", set()) for one in found))
    assert grouped <= known | {"job", "instance", "alertname"}, where


def test_counters_are_only_used_through_rate_or_increase() -> None:
    """A counter's height says when it was last reset."""
    for where, text in EXPRESSIONS:
        for name in re.findall(r"\byolo_queue_\w+_(?:total|bucket|sum|count)\b", text):
            for use in re.finditer(re.escape(name), text):
                before = text[: use.start()]
                assert re.search(r"\b(rate|increase)\(\s*$", before), f"{where}: {name}"


def test_every_metric_of_the_service_is_on_the_dashboard_or_in_an_alert(
    served: dict[str, set[str]],
) -> None:
    """What nobody looks at need not be served."""
    text = " ".join(text for _, text in EXPRESSIONS)
    unused = {
        name
        for name in served
        if name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") not in text
    }
    assert not unused


def test_every_alert_has_a_description_and_a_runbook_section() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sections == names, "one section for each alert, in the same order"
    for rule in ALERTS:
        name, notes = rule["alert"], rule["annotations"]
        assert name.startswith("YoloQueue")
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert notes["summary"]
        assert notes["description"].endswith(".")
        assert notes["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        section = RUNBOOK.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert "**Means:**" in section
        assert "**Users see:**" in section


def test_the_runbook_names_what_exists(served: dict[str, set[str]]) -> None:
    anchors = set(re.findall(r"\]\(#(\w+)\)", RUNBOOK))
    assert anchors <= {rule["alert"].lower() for rule in ALERTS}
    for name in re.findall(r"`([A-Z][A-Z_]{5,})(?:=\S*)?`", RUNBOOK):
        assert name.lower() in Settings.model_fields or name == "LOADING", name
    from typer.main import get_command

    from yolo_queue.cli.main import app

    commands: Any = get_command(app)
    for words in re.findall(r"yolo-queue ((?:[a-z]+ ?)+)", RUNBOOK):
        command = commands
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, words
            command = command.commands[word]
    titles = {panel["title"] for dashboard in DASHBOARDS.values() for panel in panels(dashboard)}
    for title in re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", RUNBOOK):
        assert title in titles, f"no panel has the title {title}"


def test_prometheus_scrapes_both_kinds() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in PROMETHEUS["scrape_configs"]}
    assert jobs["yolo-queue-api"]["names"] == ["api"]
    assert jobs["yolo-queue-api"]["port"] == 8000
    assert "worker" in jobs["yolo-queue-worker"]["names"]
    assert jobs["yolo-queue-worker"]["port"] == 9100
    asked = {job for _, text in EXPRESSIONS for job in re.findall(r'job="([^"]+)"', text)}
    assert asked <= set(jobs)


def test_grafana_finds_its_datasource_and_dashboards() -> None:
    (provider,) = load(GRAFANA / "provisioning" / "dashboards" / "yolo-queue.yml")["providers"]
    compose = load(ROOT / "docker-compose.yml")["services"]
    mounts = dict(
        mount.split(":")[:2][::-1]
        for mount in compose["grafana"]["volumes"]
        if mount.startswith("./")
    )
    assert mounts[provider["options"]["path"]] == "./deploy/monitoring/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./deploy/monitoring/grafana/provisioning"
    (source,) = DATASOURCES
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]

    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) > 0
    for dashboard in DASHBOARDS.values():
        (variable,) = dashboard["templating"]["list"]
        assert (variable["type"], variable["query"]) == ("datasource", source["type"])
        assert variable["current"]["value"] == source["uid"]
        used = {"type": "prometheus", "uid": "${" + variable["name"] + "}"}
        for panel in panels(dashboard):
            if panel["type"] == "row":
                continue
            assert panel["datasource"] == used, panel["title"]
            assert panel["targets"], panel["title"]
            for target in panel["targets"]:
                assert target["datasource"] == used, panel["title"]


def test_panels_do_not_overlap() -> None:
    for dashboard in DASHBOARDS.values():
        ids = [panel["id"] for panel in panels(dashboard)]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24, panel["title"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells
