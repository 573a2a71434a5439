"""What the dbt project states about itself, and that its data tests can fail."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import TIMEFRAMES
from include.jobs.dbt_env import DBT_PROJECT

START = datetime(2025, 3, 3, 0, 0, tzinfo=UTC)


@pytest.fixture
def manifest(dbt: Any, tmp_path: Path) -> dict[str, Any]:
    assert dbt.try_to("parse").success
    return json.loads((tmp_path / "dbt" / "target" / "manifest.json").read_text())


def test_marts_are_the_timeframes_of_the_domain(manifest: dict[str, Any]) -> None:
    marts = {
        node["config"]["timeframe"]: (node["name"], node["config"]["parent"])
        for node in manifest["nodes"].values()
        if node["config"]["materialized"] == "rolled_up"
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


def test_each_mart_is_one_line() -> None:
    for path in (DBT_PROJECT / "models" / "marts").glob("candles_*.sql"):
        assert len(path.read_text().splitlines()) == 1, path.name


def test_every_model_states_its_grain_and_describes_every_column(
    manifest: dict[str, Any], market: Any, dbt: Any
) -> None:
    dbt("run")
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            columns = market.connection.execute(
                "SELECT column_name::text FROM information_schema.columns"
                " WHERE table_schema = 'marts' AND table_name = %(name)s UNION ALL"
                # a model that is a function
                " SELECT parameter_name FROM information_schema.routines"
                " JOIN information_schema.parameters USING (specific_schema, specific_name)"
                " WHERE routine_schema = 'marts' AND routine_name = %(name)s"
                " AND parameter_mode = 'OUT'",
                {"name": node["name"]},
            )
            assert {name for (name,) in columns} == set(node["columns"]), node["name"]
            assert "Grain: one row per" in node["description"]
            assert all(column["description"] for column in node["columns"].values())


@pytest.mark.parametrize(
    ("damage", "test", "rule"),
    [
        ("volume = volume + 1", "candles_5m_equals_its_parent", None),
        ("minute_count = 4", "candles_5m_equals_its_parent", None),
        ("high = high + 1", "candles_5m_equals_its_parent", None),
        ("is_complete = false", "candles_5m_keeps_identities", "bar_with_all_minutes_is_complete"),
        ("open = close", "candles_5m_equals_its_parent", None),
        ("last_trade_id = 0", "candles_5m_equals_its_parent", None),
    ],
)
def test_a_damaged_bar_fails_its_test_and_is_kept(
    market: Any, dbt: Any, damage: str, test: str, rule: str | None
) -> None:
    market.write("BTCUSDT", START, 30, volume=Decimal(2))
    dbt(
        "run",
        "--select",
        "stg_market__candles_1m",
        "stg_market__relistings",
        "stg_ops__outages",
        "candles_5m",
    )
    for (name,) in market.connection.execute(
        "SELECT conname::text FROM pg_constraint WHERE contype = 'c'"
        " AND conrelid = 'marts.candles_5m'::regclass"
    ).fetchall():
        market.connection.execute(f'ALTER TABLE marts.candles_5m DROP CONSTRAINT "{name}"')
    market.connection.execute("ALTER TABLE marts.candles_5m ALTER close DROP NOT NULL")
    market.connection.execute(
        f"UPDATE marts.candles_5m SET {damage} WHERE open_time = %s",  # noqa: S608
        (START,),
    )

    result = dbt.try_to("test", "--select", "candles_5m,test_type:data")

    failed = {r.node.name: r for r in result.result if r.status == "fail"}
    assert test in failed
    columns = "symbol, open_time" + (", rule" if rule else "")
    kept = market.connection.execute(
        f"SELECT {columns} FROM marts_audit.{failed[test].node.relation_name.split('.')[-1]}"  # noqa: S608
    ).fetchall()
    assert ("BTCUSDT", START, *([rule] if rule else [])) in kept


def freshness(dbt: Any) -> dict[str, str]:
    results = dbt.try_to("source", "freshness").result.results
    return {r.node.name: str(r.status) for r in results if r.node.resource_type == "source"}


def test_sources_are_fresh_while_minutes_come_in_and_stale_after(market: Any, dbt: Any) -> None:
    market.connection.execute(
        "INSERT INTO market.instruments (symbol, listed_from, market, exchange_symbol, base_asset,"
        " quote_asset, status, tick_size, step_size, quote_volume_is_exact, seen_at)"
        " VALUES ('BTCUSDT', '2020-01-01', 'spot', 'BTCUSDT', 'BTC', 'USDT', 'TRADING', 0.01,"
        " 0.00001, true, now())"
    )
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    hour_ago = now - timedelta(hours=1)
    market.write("BTCUSDT", hour_ago, 1)
    # nothing was compared or checked yet, which is no error
    others = {"quality_results": "warn", "reconciliations": "warn"}
    # nor is it late, as nobody streams it
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
