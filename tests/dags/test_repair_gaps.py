"""The DAG repairs old gaps from REST and leaves recent ones to the streamer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, to_us
from include.store.ledgers.gaps import open_gap
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


@pytest.fixture
def repair(database_url, dag_bag, airflow_database, tmp_path, monkeypatch):
    config = SimulatorConfig(spot_symbols=("BTCUSDT",), um_symbols=("BTCUSDT",))
    with ExchangeThread(config) as exchange:
        for name, value in {
            "DATABASE_URL": database_url,
            "BINANCE_REST_URL": exchange.spot_rest_url,
            "BINANCE_UM_REST_URL": exchange.um_rest_url,
            "BINANCE_CM_REST_URL": exchange.cm_rest_url,
            "CANDELABRA_HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        yield lambda: dag_bag.dags["repair_gaps"].test()


def test_old_gap_is_repaired_and_recent_gap_is_left(repair, database_url):
    with connect(database_url, application_name="test") as connection:
        for first, symbol in ((0, "BTCUSDT"), (5, "BTCUSDT.P"), (30, "BTCUSDT")):
            start_us = to_us(START) + first * MINUTE_US
            open_gap(
                connection,
                symbol=symbol,
                start_us=start_us,
                end_us=start_us + 5 * MINUTE_US,
                cause="cut",
            )
        connection.execute(
            "UPDATE ops.gaps SET opened_at = opened_at - interval '11 minutes'"
            " WHERE from_time < %s",
            (START + timedelta(minutes=30),),
        )

    assert repair().state == "success"

    with psycopg.connect(database_url) as connection:
        gaps = connection.execute(
            "SELECT symbol, repaired_at IS NOT NULL FROM ops.gaps ORDER BY from_time"
        ).fetchall()
        rows = connection.execute(
            "SELECT symbol, min(open_time), count(*) FROM market.candles_1m"
            " WHERE status = 'verified' GROUP BY symbol ORDER BY symbol"
        ).fetchall()
    assert gaps == [("BTCUSDT", True), ("BTCUSDT.P", True), ("BTCUSDT", False)]
    assert rows == [
        ("BTCUSDT", START, 5),
        ("BTCUSDT.P", START + timedelta(minutes=5), 5),
    ]
