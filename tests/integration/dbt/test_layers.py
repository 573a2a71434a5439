"""How selectors.yml cuts a build into layers, and that other targets keep off production."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

LAYERS = ("intraday", "days", "analytics", "health")
COSTS = {"views", "intraday", "days", "analytics", "health"}


@pytest.fixture
def manifest(dbt: Any) -> Manifest:
    parsed = dbt.try_to("parse")
    assert parsed.success, parsed.exception
    return parsed.result


def selected(manifest: Manifest, *arguments: str) -> set[str]:
    """Unique ids of what a selection builds or tests; unit tests and exposures aside."""
    listed = dbtRunner(manifest=manifest).invoke(
        ["ls", "--log-level", "none", "--output", "json", "--output-keys", "unique_id", *arguments]
    )
    assert listed.success, listed.exception
    ids = {line.split('"')[3] for line in listed.result}
    return {name for name in ids if name.split(".")[0] in ("model", "snapshot", "test")}


def test_each_model_snapshot_and_test_is_in_one_layer_and_after_what_it_reads(
    manifest: Manifest,
) -> None:
    layers = [selected(manifest, "--selector", layer) for layer in LAYERS]
    buildable = {
        name for name in manifest.nodes if name.split(".")[0] in ("model", "snapshot", "test")
    }

    built: set[str] = set()
    for layer, names in zip(LAYERS, layers, strict=True):
        assert not names & built, f"{layer} builds again what an earlier layer built"
        built |= names
        for name in names:
            parents = {
                parent
                for parent in manifest.nodes[name].depends_on_nodes
                if not parent.startswith("source.")
            }
            assert parents <= built, f"{name} of layer {layer} reads what is built later"
    assert built == buildable


def test_each_model_has_one_cost_a_group_and_an_access(manifest: Manifest) -> None:
    groups = {group.name for group in manifest.groups.values()}
    for node in manifest.nodes.values():
        if node.resource_type == "model":
            assert len(COSTS & set(node.tags)) == 1, f"{node.name} has tags {node.tags}"
            assert node.config.group in groups, node.name
            folder = Path(node.original_file_path).parts[1]
            wanted = {"staging": "protected", "intermediate": "private", "marts": "public"}
            assert str(node.config.access) == wanted[folder], node.name


def test_every_mart_has_an_enforced_contract(manifest: Manifest) -> None:
    marts = [
        node
        for node in manifest.nodes.values()
        if node.resource_type == "model" and node.original_file_path.startswith("models/marts/")
    ]
    assert len(marts) > 14
    for node in marts:
        assert node.config.contract.enforced, node.name
        assert all(column.data_type for column in node.columns.values()), node.name


def test_a_changed_minute_selects_all_that_is_made_of_minutes(manifest: Manifest) -> None:
    names = selected(manifest, "--selector", "after_minutes", "--resource-type", "model")
    assert {"model.candelabra.candles_3m", "model.candelabra.candles_1mo"} <= names
    assert "model.candelabra.stg_market__instruments" not in names


MONDAY = datetime(2025, 3, 3, 0, 0, tzinfo=UTC)


def test_another_target_moves_no_cursor_of_production_and_leaves_the_log_to_it(
    market: Any, dbt: Any
) -> None:
    market.connection.execute("CREATE SCHEMA marts_dev AUTHORIZATION candelabra_dbt")
    market.write("BTCUSDT", MONDAY, 30)
    dbt("run", "--select", "path:models/staging", "candles_5m")
    before = market.cursors()
    bars = market.connection.execute("SELECT * FROM marts.candles_5m ORDER BY 1, 2").fetchall()
    # so old that a build of production would drop them
    market.connection.execute(
        "UPDATE ops.build_cursors SET built_at = built_at - interval '1 year'"
    )
    market.write("BTCUSDT", MONDAY, 10, volume=Decimal(9))

    dbt("run", "--select", "path:models/staging", "candles_5m", "--target", "dev")

    after = market.cursors()
    assert {key: value for key, value in after.items() if key[1] == "prod"} == before
    assert ("marts_dev.candles_5m", "dev") in after
    log = "SELECT count(*) FROM ops.candle_changes"
    assert market.connection.execute(log).fetchone()[0] > 0
    assert (
        market.connection.execute("SELECT * FROM marts.candles_5m ORDER BY 1, 2").fetchall() == bars
    )
    dev = market.connection.execute("SELECT count(*) FROM marts_dev.candles_5m").fetchone()
    assert dev == (6,)


@pytest.mark.parametrize("schema", ["marts", "MARTS_AUDIT", "ops"])
def test_another_target_is_refused_the_schemas_of_production(
    dbt: Any, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    monkeypatch.setenv("CANDELABRA_DBT_DEV_SCHEMA", schema)

    result = dbt.try_to("run", "--select", "candles_5m", "--target", "dev")

    assert not result.success
    told = str(result.exception) + " ".join(str(each.message) for each in result.result or [])
    assert "which is production's" in told
