"""Load months of three symbols through the real scheduler, from all sources, with many faults.

Three months by default; ``make soak`` loads a year with ``HISTORY_MONTHS=12``.

History comes from monthly files, daily files and REST. One zip is corrupt, one day is missing,
one is truncated, one has the checksum of an earlier version; one month is wrong and published
again, another stays wrong; REST answers 429, a task is killed, and another client uses up the
request weight. In the end the candles equal the exchange's, the ledgers record every fault, and
the request weight was never exceeded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
    MissingFile,
    ReissueFile,
    StaleChecksum,
)
from simulator.rest.limits import WeightCharge, WeightLimiter
from simulator.server import ExchangeThread
from tests.dags.processes.real_airflow import kill_a_load, real_airflow, until
from tests.integration.jobs.faulty_host import FaultyHost, faulty_host
from tests.integration.jobs.minutes_of_weight import end_minute_in

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.long]

MONTHS = int(os.environ.get("HISTORY_MONTHS", "3"))
DAYS = datetime(2026, 11, 1, tzinfo=UTC)
"""From this day on only daily files exist."""
_FIRST = 2026 * 12 + 10 - MONTHS
START = datetime(_FIRST // 12, _FIRST % 12 + 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 6, 6, tzinfo=UTC)
END = datetime(2026, 11, 6, 5, tzinfo=UTC)
SYMBOLS = {"BTCUSDT": "spot", "ETHBTC": "spot", "BTCUSDT.P": "um"}
SHARE = 1 / 100
BUDGET = {"spot": 60, "um": 24}
"""Request weight for each minute, by REST_WEIGHT_SHARE."""
IN_FLIGHT = 10
"""Weight of requests granted in one minute that arrive in the next, or granted before a response
header reports the weight of another client."""

WRONG_MONTH = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-08.zip"
REISSUED_MONTH = "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-09.zip"
CORRUPT_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-03.zip"
TRUNCATED_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-04.zip"
STALE_DAY = "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"
MISSING_DAY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"


@dataclass
class RestTraffic:
    """Request weight that the exchange counted, and status codes of its answers."""

    statuses: list[int] = field(default_factory=list)
    weight: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By the market's limit and the exchange's minute."""

    def note(self, answer: httpx.Response) -> httpx.Response:
        self.statuses.append(answer.status_code)
        return answer

    def max_of(self, market: str) -> int:
        """Return the highest weight of a market in one minute."""
        limit = BUDGET[market] + IN_FLIGHT
        return max(used for (each, _), used in self.weight.items() if each == limit)


@pytest.fixture(scope="module")
def traffic() -> Iterator[RestTraffic]:
    found = RestTraffic()
    real = WeightLimiter.charge

    def charge(self: WeightLimiter, address: str, weight: int) -> WeightCharge:
        found.weight[self.limit, self._clock.now_us() // MINUTE_US] += weight
        return real(self, address, weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightLimiter, "charge", charge)
        yield found


@pytest.fixture(scope="module")
def exchange(traffic: RestTraffic) -> Iterator[ExchangeThread]:
    config = SimulatorConfig(
        spot_symbols=("BTCUSDT", "ETHBTC"),
        um_symbols=("BTCUSDT",),
        start=START,
        clock_start=NOW,
        spot_weight_limit=BUDGET["spot"] + IN_FLIGHT,
        um_weight_limit=BUDGET["um"] + IN_FLIGHT,
    )
    with ExchangeThread(config) as running:
        for path, effect in {
            WRONG_MONTH: AlterRows(rows=1),
            CORRUPT_DAY: CorruptZip(checksum_fits=True),
            TRUNCATED_DAY: DropRows(rows=60),
            STALE_DAY: StaleChecksum(),
            MISSING_DAY: MissingFile(),
        }.items():
            running.dump_faults.add(DumpRule(effect=effect, path=path))
        yield running


@pytest.fixture(scope="module")
def hosts(
    exchange: ExchangeThread, traffic: RestTraffic
) -> Iterator[tuple[FaultyHost, FaultyHost]]:
    """Proxies in front of REST that record the answers."""
    with faulty_host(exchange.spot_rest_url) as spot, faulty_host(exchange.um_rest_url) as um:
        spot.changes["/api/"] = um.changes["/fapi/"] = traffic.note
        yield spot, um


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("months", template=_template)
    postgres.drop_database("months")


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory, postgres, metadata_template, exchange, hosts, database
) -> Iterator[LocalAirflow]:
    spot, um = hosts
    minute_ends(exchange, database, left_s=60)
    metadata_url = postgres.create_database("airflow_months", template=metadata_template)
    with real_airflow(
        tmp_path_factory.mktemp("months"),
        metadata_url=metadata_url,
        environment={
            "DATABASE_URL": database,
            "BINANCE_REST_URL": spot.url,
            "BINANCE_UM_REST_URL": um.url,
            "BINANCE_CM_REST_URL": um.url,
            "BINANCE_DUMP_URL": exchange.dump_url,
            "BINANCE_DUMP_LIST_URL": exchange.dump_url,
            "REST_WEIGHT_SHARE": str(SHARE),
        },
        active=["backfill_history", "reconcile_candles"],
    ) as running:
        yield running
    postgres.drop_database("airflow_months")


def backfill(airflow: LocalAirflow, meanwhile: Callable[[], None] | None = None) -> list[Any]:
    """Run backfill_history to its end and return its tasks."""
    span = {"symbols": ", ".join(SYMBOLS), "from": START.isoformat(), "to": END.isoformat()}
    run_id = airflow.api.trigger("backfill_history", span)
    if meanwhile is not None:
        meanwhile()
    state = airflow.api.wait_run("backfill_history", run_id, timeout_s=800)
    assert state == "success", airflow.api.failures("backfill_history", run_id)
    return airflow.api.task_states("backfill_history", run_id)


def native_backfill(
    airflow: LocalAirflow, dag_id: str, first: datetime, last: datetime, **conf: str
) -> None:
    """Run Airflow's backfill of a daily DAG from one day to another."""
    known = {run.run_id for run in airflow.api.runs(dag_id)}
    body = {
        "dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(),
        "dag_run_conf": conf,
    }  # fmt: skip
    airflow.api._call("POST", "/api/v2/backfills", json=body)
    runs = [run for run in airflow.api.runs(dag_id) if run.run_id not in known]
    assert len(runs) == (last - first).days + 1
    for run in runs:
        state = airflow.api.wait_run(dag_id, run.run_id, timeout_s=400)
        assert state == "success", airflow.api.failures(dag_id, run.run_id)
    # until the scheduler has marked the backfill as completed
    until(lambda: all(one["completed_at"] for one in backfills(airflow, dag_id)), timeout_s=120)


def backfills(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    answer = airflow.api._call("GET", "/api/v2/backfills", params={"dag_id": dag_id})
    return answer["backfills"]


@pytest.fixture(scope="module")
def truth(exchange: ExchangeThread, database: str) -> None:
    """Store the exchange's candles in a table ``truth`` of the same database."""
    month = TIMEFRAMES["1M"]
    with psycopg.connect(database) as connection:
        connection.execute(
            'CREATE TABLE truth (symbol text COLLATE "C", open_time timestamptz,'
            " open numeric, high numeric, low numeric, close numeric, volume numeric,"
            " quote_volume numeric, trade_count bigint, taker_buy_volume numeric,"
            " taker_buy_quote_volume numeric)"
        )
        for symbol, market in SYMBOLS.items():
            first_us = to_us(START)
            while first_us < to_us(END):
                until_us = min(month.next_open_us(first_us), to_us(END))
                query = {
                    "market": market, "symbol": symbol.removesuffix(".P"), "interval": "1m",
                    "startTime": first_us // 1000, "endTime": until_us // 1000 - 1,
                }  # fmt: skip
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


def differences(database: str) -> list[tuple[Any, ...]]:
    """Return rows that differ from the exchange's in any of the nine values."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE TEMP VIEW stored AS SELECT symbol, open_time, open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume"
            " FROM market.candles_1m WHERE status = 'verified'"
        )
        return connection.execute(
            "(TABLE stored EXCEPT TABLE truth) UNION ALL (TABLE truth EXCEPT TABLE stored)"
            " ORDER BY 1, 2"
        ).fetchall()


def altered_minutes(exchange: ExchangeThread, path: str) -> list[datetime]:
    """Return the minutes that are wrong in the faulty version of a file."""
    rows = httpx.get(
        f"{exchange.control_url}/sim/altered", params={"path": path}, trust_env=False, timeout=60
    ).json()
    assert rows
    unit = 1 if "/spot/" in path else 1_000  # in 2026 spot files use µs, the others ms
    return sorted(from_us(int(row["key"]) * unit) for row in rows)


def count_in_logs(airflow: LocalAirflow, event: str) -> int:
    """Count a log event in the tasks' logs."""
    logs = (airflow.home / "logs" / "tasks").rglob("*.log")
    return sum(file.read_text(errors="replace").count(event) for file in logs)


def overdraw(exchange: ExchangeThread, database: str) -> None:
    """Use up a minute's request weight as another client at the same IP address.

    Our jobs see that only in a response header.
    """
    minute_ends(exchange, database, left_s=20)
    with httpx.Client(base_url=exchange.spot_rest_url, trust_env=False, timeout=20) as client:
        used = 0
        while used < BUDGET["spot"]:
            answer = client.get(
                "/api/v3/klines", params={"symbol": "BTCUSDT", "interval": "1m", "limit": 1}
            )
            used = int(answer.raise_for_status().headers["x-mbx-used-weight-1m"])


def minute_ends(exchange: ExchangeThread, database: str, *, left_s: float) -> None:
    """Align the minutes of exchange and budget; the current one ends in ``left_s``."""
    with psycopg.connect(database) as connection:
        end_minute_in(exchange, connection, left_s=left_s)


FILES = """
SELECT path, verdict, rows, detail ->> 'replaced_by', count(*) OVER (PARTITION BY path)
FROM ops.dump_files WHERE path = ANY (%s) ORDER BY path, fetched_at
"""
VERDICTS = """
SELECT symbol, day::text, source, covered_minutes, differing_minutes, verdict
FROM ops.verdicts WHERE (symbol, day) IN (
    SELECT * FROM unnest(%s::text[], %s::date[])
) ORDER BY day, symbol, source
"""
DISCREPANCIES = """
SELECT symbol, open_time, loser_source, winner_source FROM ops.discrepancies ORDER BY 1, 2
"""
RECONCILED = """
SELECT symbol, day::text, verdict, is_complete, verified_minutes, rest_minutes, rest_differing,
    daily_minutes, daily_differing, monthly_minutes, monthly_differing
FROM ops.reconciliations ORDER BY day, symbol
"""


def rows_of(database: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(statement, arguments or None).fetchall()


def test_months_equal_the_exchange_despite_all_faults(
    airflow, exchange, hosts, database, traffic, truth
):
    day_us = TIMEFRAMES["1d"].next_open_us(0)
    still_wrong = exchange.dump_faults.add(
        DumpRule(effect=ReissueFile(at_us=to_us(NOW) + day_us), path=REISSUED_MONTH)
    )
    reissued = altered_minutes(exchange, REISSUED_MONTH)
    (altered,) = altered_minutes(exchange, WRONG_MONTH)
    exchange.faults.add(
        {"kind": "rest_error", "status": 429, "retry_after_s": 1, "times": 3, "market": "spot",
         "endpoints": "klines", "at": "+0s"}
    )  # fmt: skip

    tasks = backfill(airflow, meanwhile=lambda: kill_a_load(airflow, database))

    loads = {task.name for task in tasks if task.task_id == "load"}
    assert 1 < len(loads) <= MONTHS * 3
    assert len([task for task in tasks if task.task_id == "load" and task.try_number > 1]) == 1
    assert any(name.startswith("load [BTCUSDT 2026-08 … ") for name in loads), loads
    # Both files are as published, and no other source covers these months yet.
    wrong = {(symbol, minute) for symbol, minute, *_ in differences(database)}
    assert wrong == {("BTCUSDT", altered), *(("BTCUSDT.P", minute) for minute in reissued)}
    faulty = [CORRUPT_DAY, STALE_DAY, TRUNCATED_DAY, MISSING_DAY, WRONG_MONTH]
    assert rows_of(database, FILES, faulty) == [
        (STALE_DAY, "wrong_checksum", 0, "rest", 1),
        (CORRUPT_DAY, "corrupt", 0, "rest", 1),
        (TRUNCATED_DAY, "loaded", 1_380, None, 1),
        (WRONG_MONTH, "loaded", 31 * 1_440, None, 1),
    ]
    days = rows_of(
        database,
        "SELECT DISTINCT verdict, rows FROM ops.dump_files"
        " WHERE path LIKE '%%/daily/%%' AND NOT path = ANY (%s)",
        faulty,
    )
    assert days == [("loaded", 1_440)]
    symbols = ["BTCUSDT", "BTCUSDT.P", "ETHBTC", "ETHBTC"]
    dates = ["2026-11-02", "2026-11-02", "2026-11-03", "2026-11-04"]
    assert rows_of(database, VERDICTS, symbols, dates) == [
        ("BTCUSDT", "2026-11-02", "rest", 1_440, 0, "agrees"),  # missing
        ("BTCUSDT.P", "2026-11-02", "rest", 1_440, 0, "agrees"),  # a stale checksum
        ("ETHBTC", "2026-11-03", "rest", 1_440, 0, "agrees"),  # corrupt
        ("ETHBTC", "2026-11-04", "dump_daily", 1_380, 0, "agrees_so_far"),  # truncated
        ("ETHBTC", "2026-11-04", "rest", 60, 0, "agrees_so_far"),
    ]

    exchange.dump_faults.remove(still_wrong)
    exchange.dump_faults.add(
        DumpRule(effect=ReissueFile(at_us=exchange.clock.now_us()), path=REISSUED_MONTH)
    )
    tasks = backfill(airflow)
    assert [task.name for task in tasks if task.task_id == "load"] == ["load [BTCUSDT.P 2026-09]"]
    wrong = {(symbol, minute) for symbol, minute, *_ in differences(database)}
    assert wrong == {("BTCUSDT", altered)}
    month = ("loaded", 30 * 1_440, None, 2)
    assert rows_of(database, FILES, [REISSUED_MONTH]) == [(REISSUED_MONTH, *month)] * 2
    reissued_rows = [("BTCUSDT.P", one, "dump_monthly", "dump_monthly") for one in reissued]
    assert rows_of(database, DISCREPANCIES) == reissued_rows

    overdraw(exchange, database)
    native_backfill(airflow, "reconcile_candles", *[altered.replace(hour=0, minute=0)] * 2,
                    symbols="BTCUSDT")  # fmt: skip
    native_backfill(airflow, "reconcile_candles", DAYS + timedelta(days=1),
                    DAYS + timedelta(days=3), symbols=", ".join(SYMBOLS))  # fmt: skip

    assert differences(database) == []
    assert rows_of(database, DISCREPANCIES) == [
        ("BTCUSDT", altered, "dump_monthly", "rest"),
        *reissued_rows,
    ]
    revised = rows_of(
        database, "SELECT symbol, open_time, revision FROM market.candles_1m WHERE revision > 0"
    )
    assert sorted(revised) == [
        ("BTCUSDT", altered, 1),
        *(("BTCUSDT.P", one, 1) for one in reissued),
    ]
    day = altered.date().isoformat()
    whole, none = (1_440, 0), (0, 0)  # minutes of a source, and how many of them differ
    agrees = ("agrees", True, 1_440, *whole, *whole, *none)
    without_file = ("incomplete", False, 1_440, *whole, *none, *none)
    assert rows_of(database, RECONCILED) == [
        ("BTCUSDT", day, "differs", True, 1_440, *whole, *whole, 1_440, 1),
        ("BTCUSDT", "2026-11-02", *without_file),  # missing
        ("BTCUSDT.P", "2026-11-02", *without_file),  # a stale checksum
        ("ETHBTC", "2026-11-02", *agrees),
        ("BTCUSDT", "2026-11-03", *agrees),
        ("BTCUSDT.P", "2026-11-03", *agrees),
        ("ETHBTC", "2026-11-03", *without_file),  # corrupt
        ("BTCUSDT", "2026-11-04", *agrees),
        ("BTCUSDT.P", "2026-11-04", *agrees),
        ("ETHBTC", "2026-11-04", "incomplete", False, 1_440, *whole, 1_380, 0, *none),  # truncated
    ]

    assert count_in_logs(airflow, "weight_awaited") > 0, "no task waited for request weight"
    assert traffic.statuses.count(429) == 3
    assert set(traffic.statuses) == {200, 429}
    for market, budget in BUDGET.items():
        assert traffic.max_of(market) <= budget + IN_FLIGHT
    assert traffic.max_of("spot") >= BUDGET["spot"]
