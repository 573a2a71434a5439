"""Months of three symbols through the real scheduler, from all sources, with all that goes wrong.

A year of them with ``HISTORY_MONTHS=12``, as ``make soak`` does it; three by default.

Monthly and daily files and REST give the history; a zip is corrupt, a day is missing, another cut
short, a checksum of an earlier issue, a month wrong and issued anew, another one wrong for good,
REST says 429, a task is killed in the middle, and somebody else uses up the request weight. In the
end the table is the exchange's, the ledgers say what happened, and the weight was never overdrawn.
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
from tests.dags.real_airflow import kill_a_load, real_airflow, until
from tests.integration.jobs.faulty_host import FaultyHost, faulty_host
from tests.integration.jobs.minutes_of_weight import end_minute_in

pytestmark = pytest.mark.timeout(900)

MONTHS = int(os.environ.get("HISTORY_MONTHS", "3"))
DAYS = datetime(2026, 11, 1, tzinfo=UTC)
"""From here on there are daily files alone."""
_FIRST = 2026 * 12 + 10 - MONTHS
START = datetime(_FIRST // 12, _FIRST % 12 + 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 6, 6, tzinfo=UTC)
END = datetime(2026, 11, 6, 5, tzinfo=UTC)
SYMBOLS = {"BTCUSDT": "spot", "ETHBTC": "spot", "BTCUSDT.P": "um"}
SHARE = 1 / 100
BUDGET = {"spot": 60, "um": 24}
"""Request weight a minute, by the setting."""
IN_FLIGHT = 10
"""Weight of requests that are granted in one minute and arrive in the next, or are granted before
the header of an answer tells of a stranger's."""

WRONG_MONTH = "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-08.zip"
REISSUED_MONTH = "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-09.zip"
CORRUPT_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-03.zip"
CUT_DAY = "data/spot/daily/klines/ETHBTC/1m/ETHBTC-1m-2026-11-04.zip"
STALE_DAY = "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"
MISSING_DAY = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-02.zip"


@dataclass
class Asked:
    """What the exchange counted and REST answered."""

    statuses: list[int] = field(default_factory=list)
    weight: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By the market's limit and the exchange's minute."""

    def note(self, answer: httpx.Response) -> httpx.Response:
        self.statuses.append(answer.status_code)
        return answer

    def max_of(self, market: str) -> int:
        """The most that was used of a market's weight in a minute."""
        limit = BUDGET[market] + IN_FLIGHT
        return max(used for (each, _), used in self.weight.items() if each == limit)


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    found = Asked()
    real = WeightLimiter.charge

    def charge(self: WeightLimiter, address: str, weight: int) -> WeightCharge:
        found.weight[self.limit, self._clock.now_us() // MINUTE_US] += weight
        return real(self, address, weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightLimiter, "charge", charge)
        yield found


@pytest.fixture(scope="module")
def exchange(asked: Asked) -> Iterator[ExchangeThread]:
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
            CUT_DAY: DropRows(rows=60),
            STALE_DAY: StaleChecksum(),
            MISSING_DAY: MissingFile(),
        }.items():
            running.dump_faults.add(DumpRule(effect=effect, path=path))
        yield running


@pytest.fixture(scope="module")
def hosts(exchange: ExchangeThread, asked: Asked) -> Iterator[tuple[FaultyHost, FaultyHost]]:
    """Between the tasks and REST of each market, to see what is answered."""
    with faulty_host(exchange.spot_rest_url) as spot, faulty_host(exchange.um_rest_url) as um:
        spot.changes["/api/"] = um.changes["/fapi/"] = asked.note
        yield spot, um


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    yield postgres.create_database("year", template=_template)
    postgres.drop_database("year")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, postgres, exchange, hosts, database) -> Iterator[LocalAirflow]:
    spot, um = hosts
    minute_ends(exchange, database, left_s=60)
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
            "REST_WEIGHT_SHARE": str(SHARE),
        },
        at_work=["backfill_history", "reconcile_candles"],
    ) as running:
        yield running
    postgres.drop_database("airflow_of_a_year")


def backfill(airflow: LocalAirflow, meanwhile: Callable[[], None] | None = None) -> list[Any]:
    """A run of the form, to its end; its tasks."""
    span = {"symbols": ", ".join(SYMBOLS), "from": START.isoformat(), "to": END.isoformat()}
    run_id = airflow.api.trigger("backfill_history", span)
    if meanwhile is not None:
        meanwhile()
    state = airflow.api.wait_run("backfill_history", run_id, timeout_s=400)
    assert state == "success", airflow.api.failures("backfill_history", run_id)
    return airflow.api.task_states("backfill_history", run_id)


def native_backfill(
    airflow: LocalAirflow, dag_id: str, first: datetime, last: datetime, **conf: str
) -> None:
    """Airflow's own backfill of a daily DAG from one day to another, to its end."""
    known = {run.run_id for run in airflow.api.runs(dag_id)}
    body = {
        "dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(),
        "dag_run_conf": conf,
    }  # fmt: skip
    airflow.api._call("POST", "/api/v2/backfills", json=body)
    runs = [run for run in airflow.api.runs(dag_id) if run.run_id not in known]
    assert len(runs) == (last - first).days + 1
    for run in runs:
        state = airflow.api.wait_run(dag_id, run.run_id, timeout_s=200)
        assert state == "success", airflow.api.failures(dag_id, run.run_id)
    # until the scheduler has seen that nothing is left of it
    until(lambda: all(one["completed_at"] for one in backfills(airflow, dag_id)), timeout_s=60)


def backfills(airflow: LocalAirflow, dag_id: str) -> list[dict[str, Any]]:
    answer = airflow.api._call("GET", "/api/v2/backfills", params={"dag_id": dag_id})
    return answer["backfills"]


@pytest.fixture(scope="module")
def truth(exchange: ExchangeThread, database: str) -> None:
    """What the exchange says of every minute, in a table beside ours."""
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
    """Rows that are not the exchange's in nine values, from either side."""
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
    """Minutes of which the wrong issue of a file says otherwise than what happened."""
    rows = httpx.get(
        f"{exchange.control_url}/sim/altered", params={"path": path}, trust_env=False, timeout=60
    ).json()
    assert rows
    unit = 1 if "/spot/" in path else 1_000  # of 2026: spot files are in µs, others in ms
    return sorted(from_us(int(row["key"]) * unit) for row in rows)


def told_in_logs(airflow: LocalAirflow, event: str) -> int:
    """How often tasks told an event."""
    logs = (airflow.home / "logs" / "tasks").rglob("*.log")
    return sum(file.read_text(errors="replace").count(event) for file in logs)


def overdraw(exchange: ExchangeThread, database: str) -> None:
    """As a stranger at this address who leaves nothing of a minute's weight.

    Of him only the header of an answer tells.
    """
    minute_ends(exchange, database, left_s=20)
    with httpx.Client(base_url=exchange.spot_rest_url, trust_env=False, timeout=20) as stranger:
        used = 0
        while used < BUDGET["spot"]:
            answer = stranger.get(
                "/api/v3/klines", params={"symbol": "BTCUSDT", "interval": "1m", "limit": 1}
            )
            used = int(answer.raise_for_status().headers["x-mbx-used-weight-1m"])


def minute_ends(exchange: ExchangeThread, database: str, *, left_s: float) -> None:
    """Let the exchange and the budget count the same minutes, of which the next begins then."""
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


def test_the_months_are_the_exchanges_whatever_went_wrong(
    airflow, exchange, hosts, database, asked, truth
):
    day_us = TIMEFRAMES["1d"].next_open_us(0)
    wrong_yet = exchange.dump_faults.add(
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
    assert len(loads) > MONTHS * 3
    assert len([task for task in tasks if task.task_id == "load" and task.try_number > 1]) == 1
    assert any("2026-08" in name and "BTCUSDT" in name for name in loads)
    # Both files are what the exchange published: nobody else has spoken of these months yet.
    wrong = {(symbol, minute) for symbol, minute, *_ in differences(database)}
    assert wrong == {("BTCUSDT", altered), *(("BTCUSDT.P", minute) for minute in reissued)}
    faulty = [CORRUPT_DAY, STALE_DAY, CUT_DAY, MISSING_DAY, WRONG_MONTH]
    assert rows_of(database, FILES, faulty) == [
        (STALE_DAY, "wrong_checksum", 0, "rest", 1),
        (CORRUPT_DAY, "corrupt", 0, "rest", 1),
        (CUT_DAY, "loaded", 1_380, None, 1),
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
        ("ETHBTC", "2026-11-04", "dump_daily", 1_380, 0, "agrees_so_far"),  # cut
        ("ETHBTC", "2026-11-04", "rest", 60, 0, "agrees_so_far"),
    ]

    exchange.dump_faults.remove(wrong_yet)
    exchange.dump_faults.add(
        DumpRule(effect=ReissueFile(at_us=exchange.clock.now_us()), path=REISSUED_MONTH)
    )
    tasks = backfill(airflow)
    assert [task.name for task in tasks if task.task_id == "load"] == ["load [BTCUSDT.P 2026-09]"]
    wrong = {(symbol, minute) for symbol, minute, *_ in differences(database)}
    assert wrong == {("BTCUSDT", altered)}
    month = ("loaded", 30 * 1_440, None, 2)
    assert rows_of(database, FILES, [REISSUED_MONTH]) == [(REISSUED_MONTH, *month)] * 2
    of_the_month = [("BTCUSDT.P", one, "dump_monthly", "dump_monthly") for one in reissued]
    assert rows_of(database, DISCREPANCIES) == of_the_month

    overdraw(exchange, database)
    native_backfill(airflow, "reconcile_candles", *[altered.replace(hour=0, minute=0)] * 2,
                    symbols="BTCUSDT")  # fmt: skip
    native_backfill(airflow, "reconcile_candles", DAYS + timedelta(days=1),
                    DAYS + timedelta(days=3), symbols=", ".join(SYMBOLS))  # fmt: skip

    assert differences(database) == []
    assert rows_of(database, DISCREPANCIES) == [
        ("BTCUSDT", altered, "dump_monthly", "rest"),
        *of_the_month,
    ]
    revised = rows_of(
        database, "SELECT symbol, open_time, revision FROM market.candles_1m WHERE revision > 0"
    )
    assert sorted(revised) == [
        ("BTCUSDT", altered, 1),
        *(("BTCUSDT.P", one, 1) for one in reissued),
    ]
    day = altered.date().isoformat()
    whole, none = (1_440, 0), (0, 0)  # minutes that a source spoke of, and those that differ
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
        ("ETHBTC", "2026-11-04", "incomplete", False, 1_440, *whole, 1_380, 0, *none),  # cut
    ]

    assert told_in_logs(airflow, "weight_awaited") > 0, "nobody had to wait"
    assert asked.statuses.count(429) == 3
    assert set(asked.statuses) == {200, 429}
    for market, budget in BUDGET.items():
        assert asked.max_of(market) <= budget + IN_FLIGHT
    assert asked.max_of("spot") >= BUDGET["spot"]
