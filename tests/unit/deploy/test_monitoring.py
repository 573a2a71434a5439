"""Rules and dashboard name only what the streamer serves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.config_of_serving import STREAMER_HTTP_PORT
from streamer.health.metrics_declared import METRICS

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
    """Samples that the streamer does not serve, and labels that they do not have."""
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
def test_each_expression_names_what_the_streamer_serves(where: str, expression: str) -> None:
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
def test_a_wrong_expression_is_found(expression: str) -> None:
    assert wrong_in(expression) != []


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        METRIC_OF[sample]
        for panel in panels()
        for target in panel["targets"]
        for sample, _ in NAME.findall(target["expr"])
    }
    variables = {METRIC_OF[one] for one in ("candelabra_started",)}
    assert shown | variables == METRICS.keys()


def test_the_dashboard_asks_the_source_that_its_variable_names() -> None:
    first = DASHBOARD["templating"]["list"][0]
    assert (first["type"], first["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": f"${{{first['name']}}}"}
    for panel in panels():
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    instance = DASHBOARD["templating"]["list"][1]
    assert wrong_in(instance["query"]["query"]) == []
    assert not re.search(r"https?://|\b\d+\.\d+\.\d+\.\d+\b", json.dumps(DASHBOARD))


def test_panels_lie_beside_each_other_and_have_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in taken)
        cells |= taken
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        assert panel["description"]


def test_each_alert_says_what_it_means_and_how_urgent_it_is() -> None:
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


def test_prometheus_is_told_the_port_the_streamer_serves_on_and_the_rules_there_are() -> None:
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    [job] = told["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{STREAMER_HTTP_PORT}"]
    assert [name for name in told["rule_files"] if not (FOLDER / name).exists()] == []
    asked = {one for rule in RULES for one in re.findall(r'job="(\w+)"', rule["expr"])}
    assert asked == {job["job_name"]}
