"""Alerts and dashboard use only metrics that the streamer exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.config import STREAMER_HTTP_PORT
from streamer.health.metrics import METRICS

FOLDER = Path(__file__).parents[3] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
SAMPLES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
METRIC_OF = {
    f"{name}{suffix}": name
    for name, declared in METRICS.items()
    for suffix in SAMPLES[declared.kind]
}
OF_PROMETHEUS = {"instance", "job", "le"}
NAME = re.compile(r"\b(candelabra_\w+)(?:\{([^}]*)\})?")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def wrong_in(expression: str) -> list[str]:
    """Return unknown metrics and unknown labels of an expression."""
    found, known = [], set(OF_PROMETHEUS)
    for sample, matchers in NAME.findall(expression):
        metric = METRIC_OF.get(sample)
        if metric is None:
            found.append(sample)
            continue
        labels = {*METRICS[metric].labels, *OF_PROMETHEUS}
        known |= labels
        asked = re.findall(r"(\w+)\s*[=!]~?", matchers)
        found += [f"{sample}{{{one}}}" for one in asked if one not in labels]
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    found += [one.strip() for by in grouped for one in by.split(",") if one.strip() not in known]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_expression_uses_existing_metrics_and_labels(where: str, expression: str) -> None:
    assert wrong_in(expression) == []
    assert expression.count("(") == expression.count(")"), where
    assert expression.count("{") == expression.count("}"), where


@pytest.mark.parametrize(
    "expression",
    [
        "candelabra_frames > 0",
        "rate(candelabra_frame_total[5m])",
        'candelabra_symbols{status="dead"}',
        "sum by (symbol) (candelabra_symbols)",
        "candelabra_lag_seconds > 1",
    ],
)
def test_wrong_expression_is_found(expression: str) -> None:
    assert wrong_in(expression) != []


def test_dashboard_shows_every_metric() -> None:
    shown = {
        METRIC_OF[sample]
        for panel in panels()
        for target in panel["targets"]
        for sample, _ in NAME.findall(target["expr"])
    }
    variables = {METRIC_OF[one] for one in ("candelabra_started",)}
    assert shown | variables == METRICS.keys()


def test_dashboard_uses_the_chosen_data_source_and_no_address() -> None:
    first = DASHBOARD["templating"]["list"][0]
    assert (first["type"], first["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": f"${{{first['name']}}}"}
    for panel in panels():
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    instance = DASHBOARD["templating"]["list"][1]
    assert wrong_in(instance["query"]["query"]) == []
    assert not re.search(r"https?://|\b\d+\.\d+\.\d+\.\d+\b", json.dumps(DASHBOARD))


def test_alert_has_severity_summary_and_known_labels() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        grouped = re.search(r"by \(([^)]*)\)", rule["expr"])
        kept = {one.strip() for one in grouped[1].split(",")} if grouped else {"instance", "job"}
        assert used <= kept, rule["alert"]


def test_prometheus_scrapes_the_default_port_and_loads_the_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{STREAMER_HTTP_PORT}"]
    assert [name for name in config["rule_files"] if not (FOLDER / name).exists()] == []
    asked = {one for rule in RULES for one in re.findall(r'job="(\w+)"', rule["expr"])}
    assert asked == {job["job_name"]}
