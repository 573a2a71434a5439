"""The project's structure, and proof that its data tests can fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

from include.domain.timeframes import TIMEFRAMES
from tests.integration.dbt.conftest import QUIET

LAYERS = ("intraday", "days", "analytics", "health")
TAGS = {"views", "intraday", "days", "analytics", "health"}
START = datetime(2025, 3, 3, 0, 0, tzinfo=UTC)


@pytest.fixture
def manifest(shared_dbt: Any) -> Manifest:
    return shared_dbt.manifest()


def test_marts_are_the_timeframes_of_the_domain(manifest: Manifest) -> None:
    marts = {
        node.config["timeframe"]: (node.name, node.config["parent"])
        for node in manifest.nodes.values()
        if node.config.materialized == "rolled_up"
    }
    assert marts == {
        name: (
            timeframe.table,
            "stg_market__candles_1m"
            if timeframe.parent == "1m"
            else TIMEFRAMES[str(timeframe.parent)].table,
        )
        for name, timeframe in TIMEFRAMES.items()
        if timeframe.parent
    }


def test_every_model_has_a_grain_and_describes_its_columns(
    manifest: Manifest, shared_market: Any
) -> None:
    for node in manifest.nodes.values():
        if node.resource_type == "model":
            columns = shared_market.connection.execute(
                "SELECT column_name::text FROM information_schema.columns"
                " WHERE table_schema = 'marts' AND table_name = %(name)s UNION ALL"
                # a model that is a function
                " SELECT parameter_name FROM information_schema.routines"
                " JOIN information_schema.parameters USING (specific_schema, specific_name)"
                " WHERE routine_schema = 'marts' AND routine_name = %(name)s"
                " AND parameter_mode = 'OUT'",
                {"name": node.name},
            )
            assert {name for (name,) in columns} == set(node.columns), node.name
            assert "Grain: one row per" in node.description
            assert all(column.description for column in node.columns.values())


def selected(manifest: Manifest, *arguments: str) -> set[str]:
    """Unique ids of the models, snapshots and data tests of a selection."""
    listed = dbtRunner(manifest=manifest).invoke(
        ["ls", "--log-level", "none", "--output", "json", "--output-keys", "unique_id", *arguments]
    )
    assert listed.success, listed.exception
    ids = {line.split('"')[3] for line in listed.result}
    return {name for name in ids if name.split(".")[0] in ("model", "snapshot", "test")}


def test_each_node_is_in_one_layer_after_its_sources(
    manifest: Manifest,
) -> None:
    layers = [selected(manifest, "--selector", layer) for layer in LAYERS]
    buildable = {
        name for name in manifest.nodes if name.split(".")[0] in ("model", "snapshot", "test")
    }

    built: set[str] = set()
    for layer, names in zip(LAYERS, layers, strict=True):
        assert not names & built, f"{layer} repeats nodes of an earlier layer"
        built |= names
        for name in names:
            parents = {
                parent
                for parent in manifest.nodes[name].depends_on_nodes
                if not parent.startswith("source.")
            }
            assert parents <= built, f"{name} of layer {layer} reads a later layer"
    assert built == buildable


def test_each_model_has_one_layer_tag_a_group_and_an_access(manifest: Manifest) -> None:
    groups = {group.name for group in manifest.groups.values()}
    for node in manifest.nodes.values():
        if node.resource_type == "model":
            assert len(TAGS & set(node.tags)) == 1, f"{node.name} has tags {node.tags}"
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


def test_selector_after_minutes_contains_the_marts_of_bars(manifest: Manifest) -> None:
    names = selected(manifest, "--selector", "after_minutes", "--resource-type", "model")
    assert {"model.candelabra.candles_3m", "model.candelabra.candles_1mo"} <= names
    assert "model.candelabra.stg_market__instruments" not in names


DAMAGE = {
    "volume = volume + 1": ("candles_5m_equals_its_parent", None),
    "minute_count = 4": ("candles_5m_equals_its_parent", None),
    "high = high + 1": ("candles_5m_equals_its_parent", None),
    "is_complete = false": ("candles_5m_keeps_identities", "bar_with_all_minutes_is_complete"),
    "open = close": ("candles_5m_equals_its_parent", None),
    "last_trade_id = 0": ("candles_5m_equals_its_parent", None),
}


@pytest.fixture(scope="module")
def damaged(shared_market: Any, shared_dbt: Any) -> Any:
    """Bars of several symbols, each damaged in its own way, after a run of their data tests."""
    symbols = [f"BAD{number}USDT" for number in range(len(DAMAGE))]
    for symbol in symbols:
        shared_market.write(symbol, START, 30, volume=Decimal(2))
    shared_dbt("run", "--select", "candles_5m")
    for symbol, change in zip(symbols, DAMAGE, strict=True):
        shared_market.connection.execute(
            f"UPDATE marts.candles_5m SET {change}"  # noqa: S608
            " WHERE symbol = %s AND open_time = %s",
            (symbol, START),
        )
    result = shared_dbt.attempt("test", "--select", "candles_5m,test_type:data")
    return symbols, {r.node.name: r.node.relation_name for r in result.result if r.status == "fail"}


@pytest.mark.parametrize("change", DAMAGE)
def test_damaged_bar_fails_its_data_test(shared_market: Any, damaged: Any, change: str) -> None:
    symbols, failed = damaged
    test, rule = DAMAGE[change]
    found = shared_market.connection.execute(
        f"SELECT to_jsonb(t) ->> 'symbol', to_jsonb(t) ->> 'rule' FROM {failed[test]} AS t"  # noqa: S608
    ).fetchall()
    assert (symbols[list(DAMAGE).index(change)], rule) in found


@pytest.mark.parametrize(
    "change",
    ["close = NULL", "high = low - 1", "taker_buy_volume = volume + 1", "open_time = %(other)s"],
)
def test_postgresql_rejects_rows_that_violate_constraints(
    shared_market: Any, damaged: Any, change: str
) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        shared_market.connection.execute(
            f"UPDATE marts.candles_5m SET {change}"  # noqa: S608
            " WHERE symbol = 'BAD0USDT' AND open_time = %(first)s",
            {"first": START, "other": START + timedelta(minutes=5)},
        )


def freshness(dbt: Any) -> dict[str, str]:
    results = dbt.attempt("source", "freshness").result.results
    return {r.node.name: str(r.status) for r in results if r.node.resource_type == "source"}


def test_sources_are_fresh_while_minutes_arrive_and_late_afterwards(market: Any, dbt: Any) -> None:
    market.list_symbol("BTCUSDT")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    hour_ago = now - timedelta(hours=1)
    market.write("BTCUSDT", hour_ago, 1)
    # No day was compared and no rule was checked yet, which is only a warning.
    others = {"quality_results": "warn", "reconciliations": "warn"}
    # Symbols that are not streamed are never late.
    assert freshness(dbt) == {"candles_1m": "pass", "instruments": "pass", **others}

    market.connection.execute(
        "INSERT INTO ops.coverage (symbol, source, day, minutes)"
        " VALUES ('BTCUSDT', 'kline', %s, tstzmultirange(tstzrange(%s, %s)))",
        (hour_ago.date(), hour_ago, hour_ago + timedelta(minutes=1)),
    )
    market.write("BTCUSDT", now, 1)
    assert freshness(dbt) == {"candles_1m": "pass", "instruments": "pass", **others}

    market.delete("BTCUSDT", now, 1)
    market.connection.execute("UPDATE market.instruments SET seen_at = now() - interval '8 days'")
    assert freshness(dbt) == {"candles_1m": "warn", "instruments": "error", **others}


def test_target_dev_rejects_schemas_of_production(
    shared_dbt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDELABRA_DBT_DEV_SCHEMA", "MARTS_AUDIT")
    result = dbtRunner().invoke(["parse", "--target", "dev", "--no-partial-parse", *QUIET])
    assert not result.success
    assert "which is production's" in str(result.exception)
