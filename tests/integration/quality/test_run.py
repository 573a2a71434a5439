"""Each planted fault is found by the rule that names it, and by no other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from include.config import Settings
from include.errors import PermanentError, TransientError
from include.jobs.quality import check_quality
from include.quality.checks import CHECKS
from include.quality.report import QualityReport
from include.quality.run import run_checks

START = datetime(2025, 3, 1, 10, 0, tzinfo=UTC)
END = START + timedelta(minutes=90)
AT = START + timedelta(minutes=32)
"""A minute with trades, between minutes with trades."""
SILENT = START + timedelta(minutes=30)

FILL = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, status, source,
    source_rank, evidence_at
)
SELECT
    symbol, %(start)s + n * interval '1 minute', 100,
    CASE WHEN n %% 5 = 0 THEN 100 ELSE 101.5 END, CASE WHEN n %% 5 = 0 THEN 100 ELSE 99 END, 100,
    CASE WHEN n %% 5 = 0 THEN 0 ELSE 2 END, CASE WHEN n %% 5 = 0 THEN 0 ELSE 200 END,
    CASE WHEN n %% 5 = 0 THEN 0 ELSE 3 END, CASE WHEN n %% 5 = 0 THEN 0 ELSE 1 END,
    CASE WHEN n %% 5 = 0 THEN 0 ELSE 100 END,
    CASE WHEN n %% 5 = 0 THEN NULL ELSE (n - n / 5) * 3 + skip * n END,
    CASE WHEN n %% 5 = 0 THEN NULL ELSE (n - n / 5) * 3 + skip * n + 2 END,
    CASE WHEN n %% 7 = 0 THEN 'unconfirmed' ELSE 'verified' END,
    CASE WHEN n %% 7 = 0 THEN 'stream' ELSE 'rest' END,
    CASE WHEN n %% 7 = 0 THEN 40 ELSE 80 END,
    CASE WHEN n %% 7 = 0 THEN NULL ELSE %(start)s END
FROM (VALUES ('BTCUSDT', 0), ('ETHUSDT', 0), ('BTCUSDT.P', 4)) AS symbols (symbol, skip),
generate_series(0, 89) AS n
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Three symbols over ninety minutes, in a table that keeps no rule of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (START,)
        )
        connection.execute(FILL, {"start": START})
        for (statement,) in connection.execute(
            "SELECT format('ALTER TABLE market.candles_1m DROP CONSTRAINT %I', conname)"
            " FROM pg_constraint WHERE conrelid = 'market.candles_1m'::regclass"
            " ORDER BY contype = 'n'"
        ).fetchall():
            connection.execute(statement)
        yield connection


def check(url: str, **arguments: Any) -> QualityReport:
    return run_checks(url, **{"start": START, "end": END, "run_id": "test", **arguments})


def delete(connection: psycopg.Connection[Any], first: datetime, minutes: int = 1) -> None:
    """Remove minutes of ETHUSDT."""
    connection.execute(
        "DELETE FROM market.candles_1m"
        " WHERE symbol = 'ETHUSDT' AND open_time >= %s AND open_time < %s",
        (first, first + minutes * timedelta(minutes=1)),
    )


def broken(report: QualityReport) -> dict[str, list[tuple[str | None, datetime | None]]]:
    return {
        result.name: [(row.symbol, row.minute) for row in result.failing_rows]
        for result in report.failures
    }


def test_clean_minutes_keep_every_rule(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    report = check(database_url)
    assert broken(report) == {}
    assert [result.name for result in report.results] == [rule.name for rule in CHECKS]
    report.raise_for_failures()
    ledger = connection.execute(
        "SELECT check_name, success, failing_rows FROM ops.quality_results WHERE run_id = 'test'"
    ).fetchall()
    assert sorted(ledger) == sorted((rule.name, True, []) for rule in CHECKS)


FAULTS = [
    ("values_are_present", "close = NULL"),
    ("values_are_present", "trade_count = NULL"),
    ("values_are_present", "status = NULL"),
    ("values_are_present", "quote_volume = 'NaN'"),
    ("values_are_present", "high = 'Infinity'"),
    ("prices_are_positive", "low = 0"),
    ("prices_are_positive", "low = -1"),
    ("high_and_low_bound_the_prices", "high = 99.5"),
    ("high_and_low_bound_the_prices", "low = 100.01"),
    ("takers_buy_part_of_the_volume", "volume = 0.999"),
    ("takers_buy_part_of_the_volume", "taker_buy_quote_volume = 200.00000001"),
    ("takers_buy_part_of_the_volume", "taker_buy_volume = -0.00000001"),
    ("silent_minutes_have_zeros", "volume = 0, taker_buy_volume = 0"),
    ("status_and_source_are_known", "status = 'sure'"),
    ("status_and_source_are_known", "source = 'rumour'"),
    ("status_and_source_are_known", "source = 'stream'"),
    ("trade_ids_are_continuous", "first_trade_id = first_trade_id + 1"),
    ("trade_ids_are_continuous", "first_trade_id = last_trade_id + 1"),
]


def plant(connection: psycopg.Connection[Any], change: LiteralString, at: datetime = AT) -> None:
    """Change one row of ETHUSDT."""
    statement = sql.SQL(
        "UPDATE market.candles_1m SET {} WHERE symbol = 'ETHUSDT' AND open_time = %s"
    ).format(sql.SQL(change))
    assert connection.execute(statement, (at,)).rowcount == 1


def assert_only(report: QualityReport, rule: str) -> None:
    assert broken(report) == {rule: [("ETHUSDT", AT)]}
    with pytest.raises(PermanentError, match=rf"{rule} \(.*\): ETHUSDT 2025-03-01 10:32:00"):
        report.raise_for_failures()


@pytest.mark.parametrize(("rule", "change"), FAULTS)
def test_a_planted_fault_is_found_by_its_rule_and_no_other(
    database_url: str,
    connection: psycopg.Connection[Any],
    rule: str,
    change: LiteralString,
) -> None:
    plant(connection, change)
    assert_only(check(database_url), rule)


def test_a_second_row_for_a_minute_is_found(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "INSERT INTO market.candles_1m SELECT * FROM market.candles_1m"
        " WHERE symbol = 'ETHUSDT' AND open_time = %s",
        (AT,),
    )
    assert_only(check(database_url), "minutes_are_unique")


def test_a_missing_minute_is_found(database_url: str, connection: psycopg.Connection[Any]) -> None:
    delete(connection, AT)
    assert_only(check(database_url), "no_minute_is_missing")


def test_skipped_trades_are_found_once(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = first_trade_id + 7,"
        " last_trade_id = last_trade_id + 7 WHERE symbol = 'ETHUSDT' AND open_time >= %s",
        (AT,),
    )
    assert_only(check(database_url), "trade_ids_are_continuous")


def test_volume_in_a_silent_minute_is_found(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    for value in ("volume = 1", "quote_volume = 1", "high = 101"):
        plant(connection, value, SILENT)
        assert broken(check(database_url)) == {"silent_minutes_have_zeros": [("ETHUSDT", SILENT)]}


def test_a_row_off_the_minute_is_found_and_counts_as_its_minute(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    late = AT + timedelta(seconds=30)
    connection.execute(
        "UPDATE market.candles_1m SET open_time = %s WHERE symbol = 'ETHUSDT' AND open_time = %s",
        (late, AT),
    )
    assert broken(check(database_url)) == {"open_time_is_on_the_minute": [("ETHUSDT", late)]}


def test_a_hole_is_named_by_its_first_minute_and_length(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE symbol = 'BTCUSDT.P' AND open_time BETWEEN %s AND %s",
        (AT, AT + timedelta(minutes=11)),
    )
    (failure,) = check(database_url).failures
    (row,) = failure.failing_rows
    assert (row.symbol, row.minute, row.detail) == ("BTCUSDT.P", AT, "12 minutes missing")


def test_a_hole_is_left_to_the_streamer_until_ten_minutes_after_its_end(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    delete(connection, AT, 5)
    reconnected = AT + timedelta(minutes=5)
    young = check(database_url, end=reconnected + timedelta(minutes=9))
    assert broken(young) == {}
    settled = check(database_url, end=reconnected + timedelta(minutes=10))
    assert broken(settled) == {"no_minute_is_missing": [("ETHUSDT", AT)]}


def test_a_hole_that_an_outage_explains_is_none(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE open_time BETWEEN %s AND %s",
        (AT, AT + timedelta(minutes=3)),
    )
    assert len(check(database_url).failures[0].failing_rows) == 3
    connection.execute(
        "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
        " ('spot', NULL, %(most)s, 'halt'), ('um', 'BTCUSDT.P', %(all)s, 'halt')",
        {
            "most": f"{{[{AT}, {AT + timedelta(minutes=3)})}}",
            "all": f"{{[{AT}, {AT + timedelta(minutes=4)})}}",
        },
    )
    last = AT + timedelta(minutes=3)
    assert broken(check(database_url)) == {
        "no_minute_is_missing": [("BTCUSDT", last), ("ETHUSDT", last)]
    }


def test_a_hole_at_the_start_of_the_window_is_found_where_rows_came_before(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    later = START + timedelta(minutes=20)
    delete(connection, later, 2)
    assert broken(check(database_url, start=later)) == {
        "no_minute_is_missing": [("ETHUSDT", later)]
    }
    # a symbol's first row has nothing before it to miss
    delete(connection, START, 20)
    assert broken(check(database_url, start=later)) == {}


def test_ids_that_the_source_does_not_tell_break_nothing(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "UPDATE market.candles_1m SET first_trade_id = NULL, last_trade_id = NULL"
        " WHERE open_time BETWEEN %s AND %s",
        (AT, AT + timedelta(minutes=6)),
    )
    assert broken(check(database_url)) == {}


def test_a_trading_symbol_that_fell_silent_is_stale_and_a_delisted_one_is_not(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE symbol <> 'BTCUSDT' AND open_time > %s", (AT,)
    )
    assert broken(check(database_url)) == {
        "symbols_are_not_stale": [("BTCUSDT.P", AT), ("ETHUSDT", AT)]
    }
    # also where the whole window is without rows of it
    assert broken(check(database_url, start=AT + timedelta(minutes=20))) == {
        "symbols_are_not_stale": [("BTCUSDT.P", AT), ("ETHUSDT", AT)]
    }
    connection.execute(
        "INSERT INTO market.instruments (symbol, listed_from, listed_to, market, exchange_symbol,"
        " base_asset, quote_asset, status, tick_size, step_size, quote_volume_is_foldable, seen_at)"
        " VALUES ('ETHUSDT', '2020-01-01', %s, 'spot', 'ETHUSDT', 'ETH', 'USDT', 'BREAK', 0.01,"
        " 0.0001, true, now())",
        (AT,),
    )
    assert broken(check(database_url)) == {"symbols_are_not_stale": [("BTCUSDT.P", AT)]}
    connection.execute(
        "INSERT INTO ops.outages (market, minutes, cause) VALUES ('um', %s, 'halt')",
        (f"{{[{AT},)}}",),
    )
    assert broken(check(database_url)) == {}


def test_history_that_was_only_loaded_may_end_anywhere(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE symbol = 'ETHUSDT' AND open_time > %s", (AT,)
    )
    assert broken(check(database_url)) == {"symbols_are_not_stale": [("ETHUSDT", AT)]}
    connection.execute(
        "UPDATE market.candles_1m SET source = 'rest', status = 'verified', evidence_at = now()"
        " WHERE symbol = 'ETHUSDT'"
    )
    assert broken(check(database_url)) == {}


def test_only_the_symbols_asked_for_are_checked(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    plant(connection, "close = NULL")
    assert check(database_url, symbols=["BTCUSDT", "BTCUSDT.P"]).success
    assert not check(database_url, symbols=["ETHUSDT"]).success


def test_rows_of_a_broken_rule_are_kept_and_a_repeated_run_replaces_them(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("UPDATE market.candles_1m SET low = 0 WHERE trade_count > 0")
    (failure,) = check(database_url).failures
    assert failure.failing_count == 3 * 72
    query = (
        "SELECT success, (observed ->> 'failing_count')::int, jsonb_array_length(failing_rows),"
        " failing_rows -> 0 FROM ops.quality_results WHERE check_name = 'prices_are_positive'"
    )
    first = {
        "symbol": "BTCUSDT",
        "open_time": "2025-03-01T10:01:00+00:00",
        "detail": "lowest price is 0",
    }
    assert connection.execute(query).fetchall() == [(False, 216, 200, first)]

    connection.execute("UPDATE market.candles_1m SET low = 99 WHERE trade_count > 0")
    check(database_url)
    assert connection.execute(query).fetchall() == [(True, 0, 0, None)]


def test_the_job_raises_for_broken_rules_with_the_rights_of_its_role(
    database_url: str, connection: psycopg.Connection[Any], postgres: Any
) -> None:
    connection.execute("ALTER ROLE candelabra_jobs PASSWORD 'jobs'")
    url = postgres.url(database_url.rsplit("/", 1)[1], user="candelabra_jobs", password="jobs")
    settings = Settings(jobs_database_url=url)
    assert check_quality(settings=settings, start=START, end=END, run_id="clean").success
    delete(connection, AT)
    with pytest.raises(PermanentError, match=r"no_minute_is_missing.*ETHUSDT 2025-03-01 10:32"):
        check_quality(settings=settings, start=START, end=END, run_id="faulty")


def test_a_rule_that_cannot_be_evaluated_is_an_error_not_a_broken_rule(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("DROP TABLE ops.outages")
    with pytest.raises(PermanentError, match="no_minute_is_missing could not be evaluated") as info:
        check(database_url)
    assert "outages" in str(info.value)
    password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
    assert str(password) not in str(info.value)


def test_a_rule_that_waits_too_long_may_be_tried_again(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.quality.run.STATEMENT_TIMEOUT_S", 1)
    with connection.transaction():
        connection.execute("LOCK TABLE ops.outages IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="no_minute_is_missing could not be evaluated"):
            check(database_url)


def test_a_database_that_is_away_may_be_tried_again() -> None:
    with pytest.raises(TransientError) as info:
        check("postgresql://someone:secret@127.0.0.1:1/nowhere")
    assert "secret" not in str(info.value)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (END, START, "empty"),
        (START.replace(tzinfo=None), END, "no time zone"),
        (START + timedelta(seconds=1), END, "not a full minute"),
    ],
)
def test_a_wrong_window_is_refused(start: datetime, end: datetime, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        check("postgresql://127.0.0.1:1/nowhere", start=start, end=end)
