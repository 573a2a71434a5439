"""Months of three symbols through the real scheduler, from all sources, with all that goes wrong.

A year of them with ``HISTORY_MONTHS=12``, as ``make soak`` does it; four by default.

Monthly and daily files and REST give the history; a zip is corrupt, a day is missing, another cut
short, a checksum of an earlier issue, a month wrong and issued anew, another one wrong for good,
and REST says 429. In the end the table is the exchange's, and the ledgers say what happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from deploy.local.airflow import LocalAirflow
from deploy.local.postgres import EmbeddedPostgres
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, from_us, to_us
from simulator.config import SimulatorConfig
from simulator.dumps.faults import (
    AlterRows,
    CorruptZip,
    DropRows,
    DumpRule,
    Missing,
    Reissue,
    StaleChecksum,
)
from simulator.server import ExchangeThread
from tests.dags.real_airflow import real_airflow
from tests.integration.jobs.faulty_host import FaultyHost, faulty_host

pytestmark = pytest.mark.timeout(900)

MONTHS = int(os.environ.get("HISTORY_MONTHS", "4"))
DAYS = datetime(2026, 11, 1, tzinfo=UTC)
"""From here on there are daily files alone."""
_FIRST = 2026 * 12 + 10 - MONTHS
START = datetime(_FIRST // 12, _FIRST % 12 + 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 6, 6, tzinfo=UTC)
END = datetime(2026, 11, 6, 5, tzinfo=UTC)
SYMBOLS = {"BTCUSDT": "spot", "ETHBTC": "spot", "BTCUSDT.P": "um"}
SPOT_LIMIT, UM_LIMIT = 600, 400
"""Of request weight a minute: a tenth of the exchange's."""

WRONG_MONTH = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-08.zip"
REISSUED_MONTH = "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-09.zip"
CORRUPT_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-03.zip"
CUT_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-04.zip"
STALE_DAY = "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"
MISSING_DAY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"


@dataclass
class Asked:
    """What REST answered."""

    statuses: list[int] = field(default_factory=list)
    used_weight: dict[str, int] = field(default_factory=dict)

    def note(self, market: str, answer: httpx.Response) -> httpx.Response:
        self.statuses.append(answer.status_code)
        used = int(answer.headers.get("x-mbx-used-weight-1m", 0))
        self.used_weight[market] = max(used, self.used_weight.get(market, 0))
        return answer


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        spot_symbols=("BTCUSDT", "ETHBTC"),
        um_symbols=("BTCUSDT",),
        start=START,
        clock_start=NOW,
        spot_weight_limit=SPOT_LIMIT,
        um_weight_limit=UM_LIMIT,
    )
    with ExchangeThread(config) as running:
        for path, effect in {
            WRONG_MONTH: AlterRows(rows=3),
            CORRUPT_DAY: CorruptZip(),
            CUT_DAY: DropRows(rows=60),
            STALE_DAY: StaleChecksum(),
            MISSING_DAY: Missing(),
        }.items():
            running.dump_faults.add(DumpRule(effect=effect, path=path))
        yield running


@pytest.fixture(scope="module")
def hosts(exchange: ExchangeThread) -> Iterator[tuple[FaultyHost, FaultyHost, Asked]]:
    """Between the tasks and REST of each market, to see what is asked."""
    asked = Asked()
    with faulty_host(exchange.spot_rest_url) as spot, faulty_host(exchange.um_rest_url) as um:
        spot.changes["/api/"] = lambda answer: asked.note("spot", answer)
        um.changes["/fapi/"] = lambda answer: asked.note("um", answer)
        yield spot, um, asked


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("year", template=_template)
    postgres.drop_database("year")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, postgres, exchange, hosts, database) -> Iterator[LocalAirflow]:
    spot, um, _ = hosts
    metadata_url = postgres.create_database("airflow_of_a_year")
    with real_airflow(
        tmp_path_factory.mktemp("year"),
        metadata_url=metadata_url,
        environment={
            "DATABASE_URL": database,
            "BINANCE_REST_URL": spot.url,
            "BINANCE_UM_REST_URL": um.url,
            "BINANCE_DUMP_URL": exchange.dump_url,
            "BINANCE_DUMP_LIST_URL": exchange.dump_url,
        },
        dags=["backfill_history", "reconcile_candles"],
    ) as running:
        # Readers of the candles would only slow the loads down here.
        for dag_id in ("build_marts", "check_quality"):
            running.api.set_paused(dag_id, paused=True)
        yield running
    postgres.drop_database("airflow_of_a_year")


def backfill(airflow: LocalAirflow, **conf: str) -> list[Any]:
    """A run of the form, to its end; its tasks."""
    span = {"symbols": ", ".join(SYMBOLS), "from": START.isoformat(), "to": END.isoformat()}
    run_id = airflow.api.trigger("backfill_history", span | conf)
    state = airflow.api.wait_run("backfill_history", run_id, timeout_s=400)
    assert state == "success", airflow.api.failures("backfill_history", run_id)
    return airflow.api.task_states("backfill_history", run_id)


def native_backfill(airflow: LocalAirflow, dag_id: str, day: datetime, **conf: str) -> None:
    """Airflow's own backfill of a daily DAG for one day, to its end."""
    known = [run.run_id for run in airflow.api.runs(dag_id)]
    moment = day.isoformat()
    body = {"dag_id": dag_id, "from_date": moment, "to_date": moment, "dag_run_conf": conf}
    airflow.api._ask("POST", "/api/v2/backfills", json=body)
    run_id = airflow.api.wait_next_run(dag_id, run_type="backfill", known=known, timeout_s=60)
    state = airflow.api.wait_run(dag_id, run_id, timeout_s=100)
    assert state == "success", airflow.api.failures(dag_id, run_id)
    deadline_s = time.monotonic() + 60  # until the scheduler has seen that nothing is left of it
    while any(one["completed_at"] is None for one in backfills(airflow, dag_id)):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def backfills(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    answer = airflow.api._ask("GET", "/api/v2/backfills", params={"dag_id": dag_id})
    return answer["backfills"]


def differences(database: str, exchange: ExchangeThread) -> list[tuple[Any, ...]]:
    """Rows that are not the exchange's in nine values, from either side."""
    month = TIMEFRAMES["1M"]
    with psycopg.connect(database) as connection:
        connection.execute(
            'CREATE TEMP TABLE truth (symbol text COLLATE "C", open_time timestamptz,'
            " open numeric, high numeric, low numeric, close numeric, volume numeric,"
            " quote_volume numeric, trade_count bigint, taker_buy_volume numeric,"
            " taker_buy_quote_volume numeric)"
        )
        for symbol, market in SYMBOLS.items():
            first_us = to_us(START)
            while first_us < to_us(END):
                until_us = min(month.next_open_us(first_us), to_us(END))
                query = {
                    "market": market,
                    "symbol": symbol.removesuffix(".P"),
                    "interval": "1m",
                    "startTime": first_us // 1000,
                    "endTime": until_us // 1000 - 1,
                }
                rows = httpx.get(
                    f"{exchange.control_url}/sim/klines", params=query, trust_env=False, timeout=60
                ).json()
                assert len(rows) == (until_us - first_us) // MINUTE_US
                with connection.cursor().copy("COPY truth FROM STDIN") as copy:
                    for row in rows:
                        opened = from_us(row[0] * 1000).isoformat()
                        values = "\t".join(map(str, [*row[1:6], row[7], row[8], row[9], row[10]]))
                        copy.write(f"{symbol}\t{opened}\t{values}\n")
                first_us = until_us
        connection.execute(
            "CREATE TEMP VIEW stored AS SELECT symbol, open_time, open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume"
            " FROM market.candles_1m WHERE status = 'verified'"
        )
        return connection.execute(
            "(TABLE stored EXCEPT TABLE truth) UNION ALL (TABLE truth EXCEPT TABLE stored)"
            " ORDER BY 1, 2"
        ).fetchall()


def altered_days(exchange: ExchangeThread, path: str) -> list[datetime]:
    """Days of the rows in which a wrong file differs from what happened."""
    rows = httpx.get(
        f"{exchange.control_url}/sim/altered", params={"path": path}, trust_env=False
    ).json()
    moments = [from_us(int(row["key"])) for row in rows]  # spot files of 2026 are in µs
    assert moments
    return sorted({one.replace(hour=0, minute=0) for one in moments})


def test_the_months_are_the_exchanges_whatever_went_wrong(airflow, exchange, hosts, database):
    _, _, asked = hosts
    day_us = TIMEFRAMES["1d"].next_open_us(0)
    wrong_yet = exchange.dump_faults.add(
        DumpRule(effect=Reissue(at_us=to_us(NOW) + day_us), path=REISSUED_MONTH)
    )
    exchange.faults.add(
        {"kind": "rest_error", "status": 429, "retry_after_s": 1, "times": 3, "market": "spot",
         "endpoints": "klines", "at": "+0s"}
    )  # fmt: skip

    tasks = backfill(airflow)

    loads = {task.name for task in tasks if task.task_id == "load"}
    assert len(loads) > MONTHS * 3
    assert any("2026-08" in name and "BTCUSDT" in name for name in loads)
    wrong = differences(database, exchange)
    by_month = {(row[0], row[1].astimezone(UTC).strftime("%Y-%m")) for row in wrong}
    # Both files are what the exchange published: nobody else has spoken of these months yet.
    assert by_month == {("BTCUSDT", "2026-08"), ("BTCUSDT.P", "2026-09")}
    with psycopg.connect(database) as connection:
        files = connection.execute("SELECT path, verdict, rows FROM ops.dump_files").fetchall()
    assert {path for path, verdict, _ in files if verdict != "loaded"} == {CORRUPT_DAY, STALE_DAY}
    days = {path: rows for path, verdict, rows in files if "daily" in path and verdict == "loaded"}
    assert MISSING_DAY not in days
    assert {path for path, rows in days.items() if rows != 24 * 60} == {CUT_DAY}

    exchange.dump_faults.remove(wrong_yet)
    exchange.dump_faults.add(
        DumpRule(effect=Reissue(at_us=exchange.clock.now_us()), path=REISSUED_MONTH)
    )
    backfill(airflow)
    wrong = differences(database, exchange)
    assert {(row[0], row[1].astimezone(UTC).strftime("%Y-%m")) for row in wrong} == {
        ("BTCUSDT", "2026-08")
    }

    altered = altered_days(exchange, WRONG_MONTH)
    for day in altered:
        native_backfill(airflow, "reconcile_candles", day, symbols="BTCUSDT")
    assert differences(database, exchange) == []
    with psycopg.connect(database) as connection:
        reconciled = connection.execute(
            "SELECT day, verdict, is_complete, monthly_differing > 0 FROM ops.reconciliations"
            " WHERE symbol = 'BTCUSDT' ORDER BY day"
        ).fetchall()
        losers = connection.execute(
            "SELECT DISTINCT loser_source FROM ops.discrepancies WHERE symbol = 'BTCUSDT'"
        ).fetchall()
    assert reconciled == [(day.date(), "differs", True, True) for day in altered]
    assert losers == [("dump_monthly",)]

    assert asked.statuses.count(429) == 3
    assert set(asked.statuses) == {200, 429}
    assert asked.used_weight["spot"] <= SPOT_LIMIT
    assert asked.used_weight["um"] <= UM_LIMIT
