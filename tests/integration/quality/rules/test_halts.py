"""Halts of USD-M, during which its rows continue, are reported until they are recorded.

Of the two hours before ``HALT`` 24 minutes are silent, so that a halt must be longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from include.quality.limits import ScopeKind
from include.quality.report import QualityReport
from include.quality.run import run_checks
from tests.integration.quality.markets import END, MINUTE, NOBODY_TRADED, START, broken, fill

SYMBOLS = ["BTCUSDT", "BTCUSDT.P", "ETHUSDT.P"]
HALT = START + 120 * MINUTE
"""A silent minute, as every fifth is."""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One symbol of spot and two of USD-M over four hours."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        fill(connection, SYMBOLS)
        yield connection


def changed(url: str, run_id: str, end: datetime = END, **arguments: Any) -> QualityReport:
    return run_checks(url, run_id=run_id, scope=ScopeKind.CHANGED, end=end, **arguments)


def silence(
    connection: psycopg.Connection[Any], first: datetime, minutes: int, symbols: str = "%.P"
) -> None:
    connection.execute(
        sql.SQL(
            "UPDATE market.candles_1m SET {} WHERE symbol LIKE %s AND open_time >= %s"
            " AND open_time < %s"
        ).format(sql.SQL(NOBODY_TRADED)),
        (symbols, first, first + minutes * MINUTE),
    )


def record(connection: psycopg.Connection[Any], first: datetime, minutes: int, cause: str) -> None:
    connection.execute(
        "INSERT INTO ops.outages (market, minutes, cause)"
        " VALUES ('um', tstzmultirange(tstzrange(%s, %s)), %s)",
        (first, first + minutes * MINUTE, cause),
    )


def halts_of(report: QualityReport) -> list[tuple[str | None, datetime | None, str | None, str]]:
    """Symbol, first minute, key and detail of each halt; nothing else may be broken."""
    assert set(broken(report)) <= {"halts_are_recorded"}
    report.raise_for_failures()
    return [
        (row.symbol, row.minute, row.key, row.detail)
        for result in report.warnings
        for row in result.failing_rows
    ]


def halt(
    minutes: int, first: datetime = HALT, symbols: int = 2
) -> list[tuple[None, datetime, str, str]]:
    detail = f"{minutes} minutes in which none of {symbols} symbols traded"
    return [(None, first, "um", detail)]


def test_halt_is_a_warning_of_every_run_until_fully_recorded(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    assert halts_of(changed(database_url, "1")) == []
    silence(connection, HALT, 31)
    for run_id in ("2", "3", "4"):  # though nothing changes any more
        assert halts_of(changed(database_url, run_id)) == halt(31)
    record(connection, HALT, 10, "announced")
    assert halts_of(changed(database_url, "5")) == halt(21, HALT + 10 * MINUTE)
    record(connection, HALT + 10 * MINUTE, 21, "prolonged")
    for run_id in ("6", "7"):
        assert halts_of(changed(database_url, run_id)) == []
    connection.execute("DELETE FROM ops.outages WHERE cause = 'prolonged'")
    assert halts_of(changed(database_url, "8")) == halt(21, HALT + 10 * MINUTE)


def test_outage_of_one_symbol_records_no_halt_of_the_market(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silence(connection, HALT, 31)
    record(connection, HALT, 31, "announced")
    connection.execute("UPDATE ops.outages SET symbol = 'BTCUSDT.P'")
    assert halts_of(changed(database_url, "1")) == halt(31)


def test_continuing_halt_keeps_its_first_minute(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silence(connection, HALT, 240)
    for run_id, minutes, found in (
        ("1", 34, []),  # the last ten minutes are left out, and 24 are usual
        ("2", 35, halt(25)),
        ("3", 70, halt(60)),
    ):
        assert halts_of(changed(database_url, run_id, HALT + minutes * MINUTE)) == found
    # nor does a run that sees its end alone name another
    connection.execute("UPDATE ops.quality_results SET failing_rows = '[]'")
    assert halts_of(changed(database_url, "4", HALT + 110 * MINUTE)) == halt(100)
    window = run_checks(database_url, run_id="w", start=HALT + 90 * MINUTE, end=END)
    assert halts_of(window) == halt(110)


def test_usual_silence_is_no_halt(database_url: str, connection: psycopg.Connection[Any]) -> None:
    silence(connection, HALT, 24)
    assert halts_of(changed(database_url, "1")) == []
    # at the start of the rows the usual silence is unknown
    silence(connection, START, 40)
    assert halts_of(changed(database_url, "2")) == []


def test_recorded_halt_does_not_make_silence_usual(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silence(connection, HALT, 31)
    second = HALT + 35 * MINUTE
    silence(connection, second, 21)
    assert halts_of(changed(database_url, "1")) == halt(31)
    record(connection, HALT, 31, "announced")
    assert halts_of(changed(database_url, "2")) == halt(21, second)


def test_one_trading_symbol_rules_out_a_halt(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silence(connection, HALT, 31, "ETH%")
    assert halts_of(changed(database_url, "1")) == []
    # the other one's rows are seen alone, then
    silence(connection, HALT, 31, "BTCUSDT.P")
    assert halts_of(changed(database_url, "2")) == halt(31)


def test_halts_across_chunks_are_reported_once(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(connection, ["QUIETUSDT.P"])
    silence(connection, START, 240, "QUIET%")
    silence(connection, HALT, 31)
    monkeypatch.setattr("include.quality.scope.CHUNK_MINUTES", 50)
    monkeypatch.setattr("include.quality.scope.PIECE", timedelta(minutes=25))
    report = run_checks(database_url, run_id="all", scope=ScopeKind.ALL, end=END)
    assert halts_of(report) == halt(31, symbols=3)


def test_run_of_some_symbols_reports_halts_of_their_market(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    silence(connection, HALT, 31)
    assert halts_of(changed(database_url, "1")) == halt(31)
    for symbol, found in (("BTCUSDT", []), ("ETHUSDT.P", halt(31))):
        report = run_checks(
            database_url, run_id=symbol, scope=ScopeKind.ALL, end=END, symbols=[symbol]
        )
        assert halts_of(report) == found
    assert halts_of(changed(database_url, "2", symbols=["BTCUSDT"])) == []
    assert halts_of(changed(database_url, "3")) == halt(31)
