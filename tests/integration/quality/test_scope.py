"""A run checks what changed, what became overdue, and again what broke a rule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.quality.limits import ScopeKind
from include.quality.report import QualityReport
from include.quality.run import run_checks
from tests.integration.quality.markets import AT, END, MINUTE, START, broken, fill

SYMBOLS = ["BTCUSDT", "BTCUSDT.P", "ETHUSDT"]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Three symbols over four hours."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        fill(connection, SYMBOLS, with_trades=["BTCUSDT"])
        yield connection


def changed(url: str, run_id: str, end: datetime = END) -> QualityReport:
    return run_checks(url, run_id=run_id, scope=ScopeKind.CHANGED, end=end)


def delete(
    connection: psycopg.Connection[Any], first: datetime, minutes: int = 1, symbol: str = "ETHUSDT"
) -> None:
    connection.execute(
        "DELETE FROM market.candles_1m WHERE symbol = %s AND open_time >= %s AND open_time < %s",
        (symbol, first, first + minutes * MINUTE),
    )


def test_run_checks_changed_rows_and_earlier_failures(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    first = changed(database_url, "1")
    assert (first.scope, first.candles, broken(first)) == (ScopeKind.ALL, 720, {})

    # nothing changed: only what became overdue
    second = changed(database_url, "2")
    assert (second.scope, broken(second)) == (ScopeKind.CHANGED, {})
    assert second.candles < 150

    old = START + timedelta(minutes=12)
    connection.execute(
        "UPDATE market.candles_1m SET quote_volume = 300"
        " WHERE symbol = 'ETHUSDT' AND open_time = %s",
        (old,),
    )
    delete(connection, AT, 4, "BTCUSDT")
    faults = {
        "no_minute_is_missing": [("BTCUSDT", AT)],
        "quote_volume_fits_the_prices": [("ETHUSDT", old)],
    }
    # red until it is mended, though nothing changes any more
    for run_id in ("3", "4", "5"):
        assert broken(changed(database_url, run_id)) == faults
    connection.execute(
        "UPDATE market.candles_1m SET quote_volume = 200.25 WHERE quote_volume = 300"
    )
    connection.execute(
        "INSERT INTO market.candles_1m SELECT 'BTCUSDT' AS symbol, open_time, open, high, low,"
        " close, volume, quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume,"
        " first_trade_id, last_trade_id, status, source, source_rank, evidence_at FROM"
        " market.candles_1m WHERE symbol = 'ETHUSDT' AND open_time >= %s AND open_time < %s",
        (AT, AT + 4 * MINUTE),
    )
    assert broken(changed(database_url, "6")) == {}
    assert [row[0] for row in connection.execute(
        "SELECT run_id FROM ops.quality_runs WHERE NOT success ORDER BY run_id"
    )] == ["3", "4", "5"]  # fmt: skip


def test_change_that_commits_late_is_not_missed(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    with psycopg.connect(database_url) as late:
        delete(late, AT)  # began before the next run, ends after it
        assert broken(changed(database_url, "2")) == {}
        late.commit()
    assert broken(changed(database_url, "3")) == {"no_minute_is_missing": [("ETHUSDT", AT)]}


def test_changed_trades_are_checked_at_any_age(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    assert changed(database_url, "1").trades > 0
    end = END + timedelta(days=30)
    connection.execute(
        "UPDATE market.candles_1m SET status = 'verified', source = 'kline', source_rank = 50,"
        " evidence_at = open_time + interval '60 seconds'"
    )
    assert changed(database_url, "2", end=end).trades == 0

    def at(minutes: int) -> datetime:
        return START + timedelta(minutes=minutes)

    # filled in a month late, and not all of them
    moved = connection.execute(
        "DELETE FROM market.trades WHERE trade_time >= %s AND trade_time < %s"
        " RETURNING trade_id, trade_time",
        (at(101), at(104)),
    ).fetchall()
    report = changed(database_url, "3", end=end)
    behind = [("BTCUSDT", at(104) + timedelta(seconds=10))]
    assert broken(report)["trade_rows_are_contiguous"] == behind
    assert 0 < report.trades < 1_536  # from there on to the end of the day
    connection.execute(
        "INSERT INTO market.trades (symbol, day, trade_id, price, quantity, trade_time,"
        " is_buyer_maker) SELECT 'BTCUSDT', '2025-03-01', id, 100, 0.5, at, false"
        " FROM unnest(%s::bigint[], %s::timestamptz[]) AS missed (id, at) WHERE id <> %s",
        (*map(list, zip(*moved, strict=True)), moved[4][0]),
    )
    found = broken(changed(database_url, "4", end=end))["trade_rows_are_contiguous"]
    assert found == [("BTCUSDT", moved[5][1])]
    connection.execute(
        "INSERT INTO market.trades (symbol, day, trade_id, price, quantity, trade_time,"
        " is_buyer_maker) VALUES ('BTCUSDT', '2025-03-01', %s, 100, 0.5, %s, false)",
        moved[4],
    )
    assert "trade_rows_are_contiguous" not in broken(changed(database_url, "5", end=end))


def test_status_change_alone_is_checked(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    old = START + timedelta(minutes=12)
    connection.execute(
        "UPDATE market.candles_1m SET status = 'unconfirmed', source = 'stream', source_rank = 40,"
        " evidence_at = NULL WHERE symbol = 'ETHUSDT' AND open_time = %s",
        (old,),
    )
    assert broken(changed(database_url, "2")) == {
        "streamed_minutes_are_confirmed": [("ETHUSDT", old)]
    }


def test_faults_that_depend_on_time_are_found_without_a_change(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    # A gap that is too young at the first run, and minutes that nobody confirms.
    gap = END - 5 * MINUTE
    delete(connection, gap, 2)
    assert broken(changed(database_url, "1")) == {}
    later = END + timedelta(minutes=9)
    assert broken(changed(database_url, "2", end=later)) == {
        "no_minute_is_missing": [("ETHUSDT", gap)]
    }
    unconfirmed = connection.execute(
        "SELECT open_time FROM market.candles_1m"
        " WHERE symbol = 'BTCUSDT' AND status = 'unconfirmed' ORDER BY open_time LIMIT 1"
    ).fetchone()
    assert unconfirmed is not None
    end = unconfirmed[0] + timedelta(minutes=61)
    found = broken(changed(database_url, "3", end=end))["streamed_minutes_are_confirmed"]
    assert found == [(symbol, unconfirmed[0]) for symbol in SYMBOLS]


def test_change_log_is_preserved_until_checked(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    query = "SELECT snapshot::text FROM ops.build_cursors WHERE relation = 'quality.candles'"
    before = connection.execute(query).fetchone()
    delete(connection, AT)
    changed(database_url, "2")
    assert connection.execute(query).fetchone() != before
    # a cursor of another cluster is ignored: everything is checked
    connection.execute("UPDATE ops.build_cursors SET system_identifier = 'another'")
    assert changed(database_url, "3").scope is ScopeKind.ALL
    # and one symbol's run moves nothing
    before = connection.execute(query).fetchone()
    run_checks(database_url, run_id="4", scope=ScopeKind.CHANGED, end=END, symbols=["BTCUSDT"])
    assert connection.execute(query).fetchone() == before


def test_chunked_check_equals_a_single_one(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol, minute in zip(SYMBOLS, (5, 100, 200), strict=True):
        delete(connection, START + minute * MINUTE, 1, symbol)
    whole = run_checks(database_url, run_id="whole", scope=ScopeKind.ALL, end=END)
    monkeypatch.setattr("include.quality.scope.CHUNK_MINUTES", 100)
    monkeypatch.setattr("include.quality.scope.PIECE", timedelta(minutes=50))
    parts = run_checks(database_url, run_id="parts", scope=ScopeKind.ALL, end=END)
    assert broken(parts) == broken(whole)
    assert sorted(broken(whole)["no_minute_is_missing"]) == [
        ("BTCUSDT", START + 5 * MINUTE),
        ("BTCUSDT.P", START + 100 * MINUTE),
        ("ETHUSDT", START + 200 * MINUTE),
    ]
    assert parts.candles > whole.candles == 717


def counts(report: QualityReport) -> dict[str, int]:
    return {result.name: result.failing_count for result in report.failures}


def test_rows_beyond_the_shown_ones_are_checked_again(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("expectation", "run"):
        monkeypatch.setattr(f"include.quality.{module}.MAX_ROWS", 2)
    changed(database_url, "1")
    for symbol in SYMBOLS:
        delete(connection, AT, 1, symbol)
        delete(connection, AT + 10 * MINUTE, 1, symbol)
    for run_id in ("2", "3", "4"):
        report = changed(database_url, run_id)
        assert counts(report) == {"no_minute_is_missing": 6}
        assert len(report.failures[0].failing_rows) == 2


def test_run_of_some_symbols_hides_no_fault_of_others(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    delete(connection, AT, 1, "ETHUSDT")
    fault = {"no_minute_is_missing": [("ETHUSDT", AT)]}
    assert broken(changed(database_url, "2")) == fault
    for scope in (ScopeKind.CHANGED, ScopeKind.ALL):
        one = run_checks(database_url, run_id=scope, scope=scope, end=END, symbols=["BTCUSDT"])
        assert broken(one) == {}
    assert broken(changed(database_url, "3")) == fault
    # it does not count as a run that checked everything
    assert connection.execute(
        "SELECT run_id, scope, advances FROM ops.quality_runs"
        " WHERE run_id IN ('all', 'changed') ORDER BY 1"
    ).fetchall() == [("all", "window", False), ("changed", "window", False)]


def test_fault_found_by_another_run_meanwhile_is_checked_again(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    delete(connection, AT)
    changed(database_url, "2")
    connection.execute("UPDATE ops.quality_results SET observed = '{}' WHERE run_id = '2'")
    assert broken(changed(database_url, "3")) == {}  # forgotten by force
    fault = {"no_minute_is_missing": [("ETHUSDT", AT)]}
    assert broken(run_checks(database_url, run_id="all", scope=ScopeKind.ALL, end=END)) == fault
    assert broken(changed(database_url, "4")) == fault
    assert broken(changed(database_url, "5")) == fault


def test_clock_set_back_does_not_stop_the_checks(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    changed(database_url, "1")
    assert broken(changed(database_url, "2", end=END - timedelta(minutes=30))) == {}
