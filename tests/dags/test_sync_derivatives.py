"""The DAG in this process, against a simulated exchange."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(clock_start=NOW, um_symbols=("XLMUSDT",))
    with ExchangeThread(config) as running:
        yield running


@pytest.fixture
def sync(database_url, exchange, dag_bag, airflow_database, tmp_path, monkeypatch):
    for name, value in {
        "DATABASE_URL": database_url,
        "BINANCE_UM_REST_URL": exchange.um_rest_url,
        "BINANCE_DUMP_URL": exchange.dump_url,
        "BINANCE_DUMP_LIST_URL": exchange.dump_url,
        "CANDELABRA_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    def run(**conf):
        # a test run keeps its values in the DAG's params
        usual = {"symbols": "", "market": "um", "series": "", "from": None, "to": None}
        return dag_bag.dags["sync_derivatives"].test(run_conf=usual | conf)

    return run


def test_history_is_loaded_by_the_form_and_then_kept_up_to_date(sync, database_url):
    start = datetime(2026, 11, 19, 12, tzinfo=UTC)
    span = {"from": start.isoformat(), "to": NOW.isoformat()}
    run = sync(symbols="XLMUSDT", series="mark, funding", **span)
    assert run.state == "success"
    with psycopg.connect(database_url) as connection:
        marks = connection.execute(
            "SELECT count(*), min(open_time) FROM market.mark_prices_1m"
        ).fetchone()
        settled = connection.execute("SELECT count(*) FROM market.funding_rates").fetchone()
    assert marks[0] >= 24 * 60
    assert marks[1] == start
    assert settled[0] >= 3

    assert sync().state == "success"
