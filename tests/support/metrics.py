"""Reads a Prometheus endpoint as numbers."""

from __future__ import annotations

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


def scrape(url: str) -> list[Metric]:
    """The metric families of an endpoint, read by Prometheus' own rules."""
    answer = httpx.get(url, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(answer.text))


def samples(families: list[Metric]) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(of: Samples, name: str, **labels: str) -> float:
    return of[name, tuple(sorted(labels.items()))]


def counters(families: list[Metric]) -> Samples:
    """The samples that must never go backwards."""
    return samples([family for family in families if family.type in ("counter", "histogram")])
