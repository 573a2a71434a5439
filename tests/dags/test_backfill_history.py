"""The DAG in this process, against a simulated exchange."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg
import pytest

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

CLOCK_START = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
"""In the middle of a month, when only daily files exist."""
START = datetime(2026, 11, 20, 8, tzinfo=UTC)
END = START + timedelta(hours=3)


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        clock_start=CLOCK_START, spot_symbols=("BTCUSDT",), um_symbols=("BTCUSDT",)
    )
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture
def backfill(database_url, exchange, dag_bag, airflow_database, tmp_path, monkeypatch):
    for name, value in {
        "DATABASE_URL": database_url,
        "BINANCE_REST_URL": exchange.spot_rest_url,
        "BINANCE_UM_REST_URL": exchange.um_rest_url,
        "BINANCE_CM_REST_URL": exchange.cm_rest_url,
        "BINANCE_DUMP_URL": exchange.dump_url,
        "BINANCE_DUMP_LIST_URL": exchange.dump_url,
        "CANDELABRA_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    def run(**conf):
        span = {"from": START.isoformat(), "to": END.isoformat()}
        # a test run keeps its values in the DAG's params
        usual = {"market": "spot", "mode": "all", "kind": "klines", "keep_raw": False}
        chosen = span | usual | conf
        return dag_bag.dags["backfill_history"].test(run_conf=chosen)

    return run


def klines(exchange: ExchangeThread, market: str) -> list[tuple[object, ...]]:
    query = {
        "market": market,
        "symbol": "BTCUSDT",
        "interval": "1m",
        "startTime": int(START.timestamp() * 1000),
        "endTime": int(END.timestamp() * 1000) - 1,
    }
    rows = httpx.get(f"{exchange.control_url}/sim/klines", params=query, trust_env=False).json()
    return [
        (datetime.fromtimestamp(row[0] / 1000, UTC), *map(Decimal, row[1:6]), row[8])
        for row in rows
    ]


def test_candles_equal_the_exchange_and_the_asset_event_has_the_counts(
    backfill, exchange, database_url
):
    run = backfill(symbols="BTCUSDT, BTCUSDT.P")
    assert run.state == "success"
    for symbol, market in (("BTCUSDT", "spot"), ("BTCUSDT.P", "um")):
        with psycopg.connect(database_url) as connection:
            stored = connection.execute(
                "SELECT open_time, open, high, low, close, volume, trade_count"
                " FROM market.candles_1m WHERE symbol = %s AND status = 'verified'"
                " ORDER BY open_time",
                (symbol,),
            ).fetchall()
        assert len(stored) == 180
        assert stored == klines(exchange, market)

    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        (event,) = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id)
        assert event.source_task_id == "summarise"
        assert event.extra["inserted"] == 360


def test_market_of_the_form_applies_to_symbols_without_suffix(backfill, database_url):
    assert backfill(symbols="btcusdt", market="um").state == "success"
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT DISTINCT symbol FROM market.candles_1m").fetchall()
    assert stored == [("BTCUSDT.P",)]


def test_unknown_symbol_fails_the_plan_without_retry(backfill, capfd):
    run = backfill(symbols="NOSUCHUSDT")
    assert run.state == "failed"
    plan = run.get_task_instance("plan")
    assert (plan.state, plan.try_number) == ("failed", 1)
    assert "NOSUCHUSDT" in "".join(capfd.readouterr())


def test_without_from_all_history_is_loaded_and_the_log_explains_each_piece(
    backfill, database_url, capfd
):
    run = backfill(symbols="BTCUSDT", **{"from": None})
    assert run.state == "success"
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            "SELECT min(open_time), max(open_time), count(*) FROM market.candles_1m"
        ).fetchone()
    oldest, newest, count = stored
    assert END - oldest > timedelta(days=2)
    assert newest == END - timedelta(minutes=1)
    assert count == (END - oldest) // timedelta(minutes=1)
    log = "".join(capfd.readouterr())
    planned = [line for line in log.splitlines() if "piece_planned" in line]
    assert any("dump_daily" in line and "of the day are missing" in line for line in planned)
    assert any("source=rest" in line or "'rest'" in line for line in planned)
    assert "its history begins at" in log
    assert all(word in log for word in ("weight=", "requests=", "megabytes=", "estimated_s="))
    labels = {task.rendered_map_index for task in run.get_task_instances() if task.map_index >= 0}
    assert any(label.startswith(f"BTCUSDT {oldest:%Y-%m-%d} … ") for label in labels)


@pytest.mark.long
def test_modes_are_relative_to_stored_minutes(backfill, database_url):
    middle = {
        "from": (START + timedelta(hours=1)).isoformat(),
        "to": (START + timedelta(hours=2)).isoformat(),
    }
    assert backfill(symbols="BTCUSDT", **middle).state == "success"

    def minutes() -> int:
        with psycopg.connect(database_url) as connection:
            (count,) = connection.execute("SELECT count(*) FROM market.candles_1m").fetchone()
        return count

    assert backfill(symbols="BTCUSDT", mode="gaps").state == "success"
    assert minutes() == 60
    assert backfill(symbols="BTCUSDT", mode="forward").state == "success"
    assert minutes() == 120
    assert backfill(symbols="BTCUSDT", mode="backward").state == "success"
    assert minutes() == 180


def test_trade_files_become_candles_and_their_rows_are_stored(backfill, database_url):
    day = CLOCK_START.replace(hour=0, minute=0) - timedelta(days=2)
    days = {"from": day.isoformat(), "to": (day + timedelta(days=1)).isoformat()}
    run = backfill(symbols="BTCUSDT", kind="agg_trades", keep_raw=True, **days)
    assert run.state == "success"
    with psycopg.connect(database_url) as connection:
        sources = connection.execute("SELECT DISTINCT source FROM market.candles_1m").fetchall()
        kept = connection.execute(
            "SELECT count(*), min(trade_time) >= %s FROM market.agg_trades", (day,)
        ).fetchone()
    assert sources == [("trades",)]
    assert kept[0] > 1000
    assert kept[1]
    labels = {task.rendered_map_index for task in run.get_task_instances() if task.map_index >= 0}
    assert labels == {f"BTCUSDT agg_trades {day:%Y-%m-%d}"}


def test_long_load_leaves_a_slot_and_priority_to_short_tasks(dag_bag, policies):
    history = dag_bag.dags["backfill_history"]
    pools = json.loads((Path(policies.__file__).parent / "pools.json").read_text())
    assert history.max_active_tasks < pools[policies.POOL_REST]["slots"]
    due = [dag_bag.dags[name] for name in ("repair_gaps", "sync_instruments")]
    waiting = [
        task.priority_weight + len(task.get_flat_relative_ids(upstream=False))
        for dag in dag_bag.dags.values()
        if dag not in due
        for task in dag.tasks
        if task.pool == policies.POOL_REST
    ]
    assert len(waiting) >= 3
    for dag in due:
        (task,) = dag.tasks
        assert (task.pool, str(task.weight_rule)) == (policies.POOL_REST, "absolute")
        assert task.priority_weight > max(waiting)
